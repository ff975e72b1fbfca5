//! A connection's way: listener filters, filter chain, transport socket, network filters.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use futures_util::future::{pending, select, select_all};
use http::Version;
use tokio::time::timeout;

use super::{
    Accepted, DownstreamTransport, FilterChain, ListenerConfig, ListenerFilterCx, Refused,
    accept::Arrival,
    active::Active,
    balance::Balanced,
    overload::{self, Claimed, TurnedAway},
    stats::{HandlerStats, ListenerStats},
};
use crate::{
    access_log::LogCx,
    http::{
        ConnectionInfo, Flag, StreamInfo,
        stream_info::{Inspected, NETWORK_NAMESPACE, Sharing, StringObject, TlsInfo},
    },
    net::{Address, Stream},
    network_filter::{Connection, Gated, NetworkFilter},
    server::{
        Passthrough, Worker,
        overload::{ScaledTimer, expire},
    },
};

/// Counts a connection as long as it is there: from the choice of its filter chain on, as in Envoy.
struct Counted<'a> {
    stats: &'a ListenerStats,
    handler: &'a HandlerStats,
    since: Instant,
    worker: &'a Worker,
}

impl<'a> Counted<'a> {
    fn new(stats: &'a ListenerStats, handler: &'a HandlerStats, worker: &'a Worker) -> Self {
        handler.downstream_cx_total.inc();
        handler.downstream_cx_active.inc();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        worker.server.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            stats,
            handler,
            since: Instant::now(),
            worker,
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.stats.downstream_cx_active.dec();
        self.handler.downstream_cx_active.dec();
        self.stats.downstream_cx_destroy.inc();
        self.stats
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
        run(accepted, address, config, &active, worker.clone()).await;
    });
}

/// `address` is the number of the listener's address it came to.
async fn run(accepted: Accepted, address: usize, config: Arc<ListenerConfig>, active: &Active, worker: Rc<Worker>) {
    let (stats, handler) = (active.stats.local(), active.handler.local());
    let mut accepted = accepted;
    let mut passthrough = Passthrough::default();
    let (local, remote) = match &mut accepted {
        Accepted::Tcp(s, peer) => {
            // Small writes must not wait for the peer's acknowledgement.
            let _ = s.set_nodelay(true);
            (
                s.local_addr()
                    .map_or_else(|_| config.addresses[0].0.clone(), Address::Ip),
                Address::Ip(unmap(*peer)),
            )
        }
        Accepted::Unix(_, address) => (address.clone(), Address::Pipe("".into())),
        Accepted::Internal(connection) => {
            passthrough = std::mem::take(&mut connection.passthrough);
            let local = Address::Internal {
                listener: config.name.clone(),
                endpoint: connection.endpoint.clone(),
            };
            (local, Address::internal_client())
        }
    };
    let mut info = ConnectionInfo {
        id: worker.server.next_connection_id(),
        local_address: local,
        local_address_restored: false,
        remote_address: remote.clone(),
        direct_remote_address: remote,
        start_time: SystemTime::now(),
        server_name: None,
        tls: None,
        ja3: None,
        ja4: None,
        original_source: None,
        listener: config.name.clone(),
        listener_metadata: config.metadata.clone(),
        filter_chain_metadata: None,
        protocol: Default::default(),
        direction: config.direction,
        buffer_limit: config.buffer_limit,
        filter_chain: "".into(),
        metadata: RefCell::new(passthrough.metadata),
        filter_state: RefCell::new(passthrough.filter_state),
        transport_failure: Default::default(),
        flags: Default::default(),
        code_details: Default::default(),
        local_close: Default::default(),
        held: Default::default(),
        outcome: RefCell::new((!config.access_log.is_empty()).then(Default::default)),
        termination_details: Default::default(),
    };
    if let Some(namespace) = config.addresses.get(address).and_then(|(_, o)| o.namespace.clone()) {
        let mut state = info.filter_state.borrow_mut();
        let object = Rc::new(StringObject(namespace));
        state.set(NETWORK_NAMESPACE.into(), object, Sharing::None, true);
    }
    let Some(mut inspected) = listener_filters(&mut accepted, &config, stats, &mut info).await else {
        return log_closed(&config, info, None, None);
    };
    let taken_over = match config.hand_off && info.local_address_restored {
        true => worker.listeners.by_destination(&info.local_address, &config.name),
        false => None,
    };
    let (config, other_stats) = match taken_over {
        // Its chains may have changed while listener filters looked.
        None => (active.config(), None),
        Some(other) => {
            let config = other.config();
            info.listener.clone_from(&config.name);
            info.listener_metadata.clone_from(&config.metadata);
            info.direction = config.direction;
            // What the other listener's filters look at was not looked at yet.
            let Some(seen) = listener_filters(&mut accepted, &config, other.stats.local(), &mut info).await else {
                return log_closed(&config, info, None, None);
            };
            inspected = seen;
            (config, Some(other))
        }
    };
    let stats = other_stats.as_ref().map_or(stats, |other| other.stats.local());
    let Some(chain) = config.chains.find(&info, &inspected).cloned() else {
        stats.no_filter_chain_match.inc();
        let (client, local) = (&info.remote_address, &info.local_address);
        tracing::debug!(listener = %config.name, %client, %local, "closing connection: no matching filter chain found");
        log_closed(&config, info, Some(Flag::NoRouteFound), Some("filter_chain_not_found"));
        return;
    };
    let _counted = Counted::new(stats, handler, &worker);
    info.filter_chain = chain.name.clone();
    info.filter_chain_metadata.clone_from(&chain.metadata);
    let (stream, tls) = match handshake(accepted, &chain, &config, &worker).await {
        Ok(done) => done,
        Err(failure) => {
            if failure.timed_out {
                stats.downstream_cx_transport_socket_connect_timeout.inc();
            }
            *info.transport_failure.borrow_mut() = Some(failure.reason);
            log_closed(&config, info, None, None);
            return;
        }
    };
    info.tls = tls.map(Arc::new);
    let info = Rc::new(info);
    let connection = Connection {
        stream,
        info: info.clone(),
        listener: config.clone(),
        drain: chain.drain.listen().modify_only(config.drain_modify_only),
        guards: Vec::new(),
    };
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

/// Counts a connection as long as listener filters look at it.
struct Looking<'a>(&'a ListenerStats);

impl<'a> Looking<'a> {
    fn new(stats: &'a ListenerStats) -> Self {
        stats.downstream_pre_cx_active.inc();
        Self(stats)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.downstream_pre_cx_active.dec();
    }
}

/// What the listener filters found; none when the connection is to be closed.
async fn listener_filters(
    accepted: &mut Accepted,
    config: &ListenerConfig,
    stats: &ListenerStats,
    info: &mut ConnectionInfo,
) -> Option<Inspected> {
    let mut inspected = Inspected::default();
    if config.filters.is_empty() {
        return Some(inspected);
    }
    let _looking = Looking::new(stats);
    let looked = async {
        let mut cx = ListenerFilterCx {
            accepted,
            info,
            inspected: &mut inspected,
        };
        for filter in &config.filters {
            match filter.run(&mut cx).await {
                // As in Envoy, a reset is noticed when the time is over; without a limit there is no such moment.
                Err(Refused::Io(e))
                    if e.kind() == io::ErrorKind::ConnectionReset && config.filters_timeout.is_some() =>
                {
                    pending::<()>().await;
                }
                done => done?,
            }
        }
        Ok(())
    };
    let looked = match config.filters_timeout {
        Some(limit) => timeout(limit, looked).await.ok(),
        None => Some(looked.await),
    };
    match looked {
        Some(Ok(())) => Some(inspected),
        Some(Err(Refused::Io(e))) => {
            // A reset is not counted as going.
            if e.kind() != io::ErrorKind::ConnectionReset {
                stats.downstream_listener_filter_remote_close.inc();
            }
            tracing::debug!(listener = %config.name, client = %info.remote_address, error = %e, "went before listener filters were done");
            None
        }
        Some(Err(Refused::Filter)) => {
            tracing::debug!(listener = %config.name, client = %info.remote_address, "refused by a listener filter");
            None
        }
        None => {
            stats.downstream_pre_cx_timeout.inc();
            tracing::debug!(listener = %config.name, client = %info.remote_address, "listener filters timed out");
            // What was found until then counts.
            config.continue_on_filters_timeout.then_some(inspected)
        }
    }
}

struct HandshakeFailure {
    reason: String,
    timed_out: bool,
}

async fn handshake(
    accepted: Accepted,
    chain: &FilterChain,
    config: &ListenerConfig,
    worker: &Worker,
) -> Result<(Stream, Option<TlsInfo>), HandshakeFailure> {
    match (&chain.transport, accepted) {
        (DownstreamTransport::RawBuffer, accepted) => Ok((accepted.into_stream(), None)),
        (DownstreamTransport::Tls(tls), accepted) => {
            let accepting = tls.accept(accepted.into_stream());
            let done = match chain.transport_timeout {
                Some(limit) => {
                    let overload = worker.server.overload().filter(|_| !config.bypass_overload);
                    tokio::select! {
                        biased;
                        done = accepting => done,
                        () = expire(overload, ScaledTimer::TransportSocketConnect, limit) => {
                            return Err(HandshakeFailure {
                                reason: "transport socket timeout was reached".into(),
                                timed_out: true,
                            });
                        }
                    }
                }
                None => accepting.await,
            };
            done.map(|(stream, info)| (stream, Some(info)))
                .map_err(|e| HandshakeFailure {
                    reason: e.0,
                    timed_out: false,
                })
        }
    }
}

fn log_closed(config: &ListenerConfig, info: ConnectionInfo, flag: Option<Flag>, details: Option<&'static str>) {
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

/// An IPv4 client of an IPv6 socket is shown as IPv4.
fn unmap(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V6(v6) => v6
            .ip()
            .to_ipv4_mapped()
            .map_or(peer, |v4| SocketAddr::new(v4.into(), v6.port())),
        SocketAddr::V4(_) => peer,
    }
}
