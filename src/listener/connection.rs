//! A connection as long as it is there: admitted, brought to its filter chain ([`arrive`]), served by the network
//! filters, counted and logged.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use futures_util::future::{select, select_all};
use http::Version;

use super::{
    Accepted, FilterChain, ListenerConfig,
    accept::Arrival,
    active::Active,
    arrive::{Arrived, arrive},
    balance::Balanced,
    overload::{self, Claimed, TurnedAway},
};
use crate::{
    access_log::LogCx,
    http::{ConnectionInfo, Flag, StreamInfo},
    network_filter::{Connection, Gated, NetworkFilter},
    server::Worker,
};

/// Counts a connection as long as it is there: from the choice of its filter chain on, as in Envoy.
pub(super) struct Counted {
    /// The listener whose chain it has.
    pub(super) listener: Rc<Active>,
    /// The one that accepted it.
    accepted_by: Rc<Active>,
    since: Instant,
    worker: Rc<Worker>,
}

impl Counted {
    pub(super) fn new(listener: Rc<Active>, accepted_by: Rc<Active>, worker: Rc<Worker>) -> Self {
        let (stats, handler) = (listener.stats.local(), accepted_by.handler.local());
        handler.downstream_cx_total.inc();
        handler.downstream_cx_active.inc();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        worker.server.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            listener,
            accepted_by,
            since: Instant::now(),
            worker,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = self.listener.stats.local();
        stats.downstream_cx_active.dec();
        self.accepted_by.handler.local().downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        stats
            .downstream_cx_length_ms
            .record(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.worker.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a connection off its listener's count, and off the process's.
struct Open {
    listener: Arc<ListenerConfig>,
    _claimed: Option<Claimed>,
    _balanced: Option<Balanced>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves an accepted socket in a task of its own, unless a limit of the runtime is reached.
pub(super) fn spawn(accepted: Accepted, arrival: Arrival, active: &Rc<Active>, worker: &Rc<Worker>) {
    let config = active.config();
    let stats = active.stats.local();
    let claimed = match &accepted {
        // What stays within the process is no connection to it.
        Accepted::Internal(_) => None,
        _ => match overload::admit(&config, &worker.server) {
            Ok(claimed) => claimed,
            Err(TurnedAway::GlobalLimit) => return stats.downstream_global_cx_overflow.inc(),
            Err(TurnedAway::Overload) => return stats.downstream_cx_overload_reject.inc(),
        },
    };
    if config.open.load(Ordering::Relaxed) >= config.connection_limit.integer(u64::MAX) {
        stats.downstream_cx_overflow.inc();
        return;
    }
    config.open.fetch_add(1, Ordering::Relaxed);
    let Arrival { address, balanced } = arrival;
    let open = Open {
        listener: config.clone(),
        _claimed: claimed,
        _balanced: balanced,
    };
    let (active, worker) = (active.clone(), worker.clone());
    tokio::task::spawn_local(async move {
        let _open = open;
        // Boxed: what it takes to get here is not kept as long as the connection.
        let arriving = Box::pin(arrive(accepted, address, config, active, worker.clone()));
        let Some(arrived) = arriving.await else { return };
        run(arrived, worker).await;
    });
}

/// Serves the connection, and logs it for the listener.
async fn run(arrived: Arrived, worker: Rc<Worker>) {
    let Arrived {
        connection,
        chain,
        counted: _counted,
    } = arrived;
    let config = connection.listener.clone();
    let info = connection.info.clone();
    serve(connection, &chain, &worker).await;
    if !config.access_log.is_empty() {
        let protocol = info.protocol.get();
        let mut stream = of_connection(info, protocol);
        stream.take_outcome();
        config.access_log.log(&LogCx {
            request: None,
            response: None,
            info: &stream,
        });
    }
}

/// Runs the network filters, until the end of a drain at the latest.
async fn serve(connection: Connection, chain: &FilterChain, worker: &Rc<Worker>) {
    let drain = chain.drain.listen();
    let info = connection.info.clone();
    let filters = async {
        let mut connection = connection;
        for (at, filter) in chain.filters.iter().enumerate() {
            match filter.clone() {
                NetworkFilter::Gate(gate) => match gate.on_connection(worker.clone(), connection).await {
                    Gated::Pass(passed) => connection = passed,
                    Gated::Closed(info, flag) => {
                        if let Some(NetworkFilter::Terminal(terminal)) = chain.filters.get(at..).and_then(<[_]>::last) {
                            terminal.refused(&info, flag);
                        }
                        return;
                    }
                },
                NetworkFilter::Terminal(terminal) => {
                    let guards = std::mem::take(&mut connection.guards);
                    let served = terminal.serve(worker.clone(), connection);
                    match guards.is_empty() {
                        true => served.await,
                        // A guard that ends closes the connection.
                        false => {
                            select(select_all(guards), served).await;
                        }
                    }
                    return;
                }
            }
        }
    };
    // Told before the filters are dropped, whose logs want to know.
    let cut = async {
        drain.wait_end().await;
        info.local_close.set(drain.ended());
    };
    tokio::select! {
        biased;
        () = filters => {}
        () = cut => {}
    }
}

pub(super) fn log_closed(
    config: &ListenerConfig,
    info: ConnectionInfo,
    flag: Option<Flag>,
    details: Option<&'static str>,
) {
    if config.access_log.is_empty() {
        return;
    }
    let mut stream = of_connection(Rc::new(info), None);
    if let Some(flag) = flag {
        stream.flags.set(flag);
    }
    if let Some(details) = details {
        stream.response_code_details = Some(details.into());
    }
    config.access_log.log(&LogCx {
        request: None,
        response: None,
        info: &stream,
    });
}

/// What a listener's log says of a connection.
fn of_connection(info: Rc<ConnectionInfo>, protocol: Option<Version>) -> StreamInfo {
    let mut stream = StreamInfo::new(info, protocol);
    stream.take_findings();
    stream
}
