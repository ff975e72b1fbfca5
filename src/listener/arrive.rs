//! A connection from its accept to its network filters: listener filters, filter chain, transport socket.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use futures_util::future::pending;
use tokio::time::timeout;

use super::{
    Accepted, DownstreamTransport, FilterChain, ListenerConfig, ListenerFilterCx, Refused,
    active::Active,
    connection::{Counted, log_closed},
    stats::ListenerStats,
};
use crate::{
    http::{
        ConnectionInfo, Flag,
        stream_info::{Inspected, NETWORK_NAMESPACE, Sharing, StringObject, TlsInfo},
    },
    net::{Address, Stream},
    network_filter::{Connection, NetworkFilter},
    server::{
        Passthrough, Worker,
        overload::{ScaledTimer, expire},
    },
};

/// A connection that is ready for its network filters.
pub(super) struct Arrived {
    pub(super) connection: Connection,
    pub(super) chain: Arc<FilterChain>,
    pub(super) counted: Counted,
}

/// Takes a connection through listener filters, chain match and transport socket; none if it ends there, which is
/// logged then. `address` is the number of the listener's address it came to.
pub(super) async fn arrive(
    mut accepted: Accepted,
    address: usize,
    config: Arc<ListenerConfig>,
    active: Rc<Active>,
    worker: Rc<Worker>,
) -> Option<Arrived> {
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
        told: passthrough.told,
        upstream_watchers: Default::default(),
    };
    if let Some(namespace) = config.addresses.get(address).and_then(|(_, o)| o.namespace.clone()) {
        let mut state = info.filter_state.borrow_mut();
        let object = Rc::new(StringObject(namespace));
        state.set(NETWORK_NAMESPACE.into(), object, Sharing::None, true);
    }
    let Some(mut inspected) = listener_filters(&mut accepted, &config, active.stats.local(), &mut info).await else {
        log_closed(&config, info, None, None);
        return None;
    };
    let taken_over = match config.hand_off && info.local_address_restored {
        true => worker.listeners.by_destination(&info.local_address, &config.name),
        false => None,
    };
    let (config, counting) = match taken_over {
        // Its chains may have changed while listener filters looked.
        None => (active.config(), active.clone()),
        Some(other) => {
            let config = other.config();
            info.listener.clone_from(&config.name);
            info.listener_metadata.clone_from(&config.metadata);
            info.direction = config.direction;
            // What the other listener's filters look at was not looked at yet.
            let Some(seen) = listener_filters(&mut accepted, &config, other.stats.local(), &mut info).await else {
                log_closed(&config, info, None, None);
                return None;
            };
            inspected = seen;
            (config, other)
        }
    };
    let Some(chain) = config.chains.find(&info, &inspected).cloned() else {
        counting.stats.local().no_filter_chain_match.inc();
        let (client, local) = (&info.remote_address, &info.local_address);
        tracing::debug!(listener = %config.name, %client, %local, "closing connection: no matching filter chain found");
        log_closed(&config, info, Some(Flag::NoRouteFound), Some("filter_chain_not_found"));
        return None;
    };
    let counted = Counted::new(counting, active, worker.clone());
    info.filter_chain = chain.name.clone();
    info.filter_chain_metadata.clone_from(&chain.metadata);
    let since = Instant::now();
    let (stream, tls) = match handshake(accepted, &chain, &config, &worker).await {
        Ok(done) => done,
        Err(failure) => {
            if failure.timed_out {
                let stats = counted.listener.stats.local();
                stats.downstream_cx_transport_socket_connect_timeout.inc();
            }
            if let Some(NetworkFilter::Terminal(terminal)) = chain.filters.last() {
                terminal.not_secured(since);
            }
            *info.transport_failure.borrow_mut() = Some(failure.reason);
            log_closed(&config, info, None, None);
            return None;
        }
    };
    info.tls = tls.map(Arc::new);
    let connection = Connection {
        stream,
        info: Rc::new(info),
        drain: chain.drain.listen().modify_only(config.drain_modify_only),
        listener: config,
        guards: Vec::new(),
    };
    Some(Arrived {
        connection,
        chain,
        counted,
    })
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
