//! Opening one upstream connection: socket, source address, transport socket, all within `connect_timeout`.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use http::Version;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use xds_protos::envoy::config::core::v3::socket_option::SocketState;

use super::{TransportOptions, UpstreamConnInfo, happy_eyeballs};
use crate::{
    http::stream_info::{ConnectTimes, FindingSlot, Findings, SharedObjects, TlsInfo},
    net::{Address, OriginalSource, Stream, errno_text},
    server::InternalListeners,
    upstream::{ClusterInfo, ConnectFailure, Host, NewConnection, transport_socket::TransportCx},
};

/// A connected stream and what is known of it.
pub struct Connected {
    /// Behind its transport socket.
    pub stream: Stream,
    /// Its facts; the protocol is what ALPN settled, HTTP/1.1 without.
    pub info: UpstreamConnInfo,
}

/// What a connection is opened with.
pub struct Dial<'a> {
    /// Of this cluster.
    pub cluster: &'a ClusterInfo,
    /// To this host.
    pub host: &'a Host,
    /// What the request wants of the transport socket.
    pub options: Option<&'a TransportOptions>,
    /// ALPN to offer when the configuration names none.
    pub alpn: &'static [&'static str],
    /// Listeners within this process.
    pub internal: &'a InternalListeners,
    /// The client's address, where the connection is to come from there.
    pub source: Option<OriginalSource>,
    /// Filter state that goes along to them.
    pub shared: Option<&'a SharedObjects>,
    /// Where an internal listener tells what it finds out, if somebody asks.
    pub told: Option<&'a FindingSlot>,
}

/// Connects to a host, through the network filters of its cluster.
pub async fn connect(dial: Dial<'_>, id: u64) -> Result<Connected, ConnectFailure> {
    let started = Instant::now();
    let filtered = !dial.cluster.network_filters.is_empty();
    let told = filtered.then(FindingSlot::default);
    let dial = Dial {
        told: told.as_ref(),
        ..dial
    };
    let limit = dial.cluster.connect_timeout;
    let (stream, local, remote, tls, end) = tokio::time::timeout(limit, open(&dial))
        .await
        .unwrap_or(Err(ConnectFailure::Timeout))?;
    let protocol = match tls.as_ref().and_then(|t| t.alpn.as_deref()) {
        Some("h2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let secured = tls.is_some();
    let (stream, found) = match &told {
        None => (stream, None),
        Some(told) => {
            let (stream, findings) = filter(&dial, stream, tls.as_deref(), &local, told);
            (stream, Some(Arc::new(findings)))
        }
    };
    let info = UpstreamConnInfo {
        id,
        local_address: local,
        remote_address: remote,
        tls,
        protocol,
        times: ConnectTimes {
            start: started,
            end,
            handshake: secured.then(Instant::now),
        },
        connect_time: started.elapsed(),
        found,
    };
    Ok(Connected { stream, info })
}

/// Runs a new connection through the network filters.
fn filter(
    dial: &Dial<'_>,
    mut stream: Stream,
    tls: Option<&TlsInfo>,
    local_address: &Address,
    told: &FindingSlot,
) -> (Stream, Findings) {
    let mut findings = Findings::default();
    for filter in dial.cluster.network_filters.iter() {
        let connection = NewConnection {
            cluster: dial.cluster,
            host: dial.host,
            tls,
            local_address,
            told,
            findings: &mut findings,
        };
        stream = filter.connected(stream, connection);
    }
    (stream, findings)
}

type Opened = (Stream, Address, Address, Option<Arc<TlsInfo>>, Instant);

/// Connects to a host, without a limit of time.
pub async fn open(dial: &Dial<'_>) -> Result<Opened, ConnectFailure> {
    let Dial {
        cluster,
        host,
        options,
        alpn,
        ..
    } = *dial;
    let socket = cluster.sockets.for_host(host);
    let attempt = |address: Address| async move {
        let (stream, local, remote) = dial.to(&address).await?;
        let end = Instant::now();
        let (stream, tls) = socket
            .connect(
                stream,
                TransportCx {
                    cluster,
                    host,
                    options,
                    alpn,
                },
            )
            .await
            .map_err(|e| ConnectFailure::Remote { reason: e.0.into() })?;
        Ok((stream, local, remote, tls, end))
    };
    let attributes = host.attributes().clone();
    // As in Envoy, the metadata counts whatever the socket is.
    if let Some(proxy) = socket
        .proxy_of(host)
        .or_else(|| attributes.transport.as_ref()?.proxy.clone())
    {
        return attempt(proxy).await;
    }
    if attributes.additional_addresses.is_empty() {
        return attempt(host.present_address()).await;
    }
    let others = attributes.additional_addresses.iter().cloned();
    let all = std::iter::once(host.present_address()).chain(others);
    let addresses = cluster.connect.order.sort(all.collect());
    let tried = std::cell::Cell::new(0_u64);
    let counted = |address: Address| {
        // Envoy counts each further address as a connection.
        if tried.replace(tried.get() + 1) > 0 {
            cluster.stats.local().upstream_cx_total.inc();
        }
        attempt(address)
    };
    happy_eyeballs::race(addresses, counted).await
}

impl Dial<'_> {
    /// Connects to an address of the host.
    async fn to(&self, address: &Address) -> Result<(Stream, Address, Address), ConnectFailure> {
        match address {
            Address::Ip(ip) => {
                let stream = tcp(self.cluster, self.source, *ip).await?;
                let local = stream.local_addr().map_or_else(|_| address.clone(), Address::Ip);
                Ok((Stream::Tcp(stream), local, address.clone()))
            }
            Address::Pipe(path) => {
                let stream = unix(path).await.map_err(|e| immediate(&e, address))?;
                Ok((Stream::Unix(stream), Address::Pipe("".into()), address.clone()))
            }
            Address::Internal { listener, endpoint } => {
                let socket = self.cluster.sockets.for_host(self.host);
                let mut passthrough = socket.passthrough(self.host, &self.cluster.metadata, self.shared);
                passthrough.told = self.told.cloned();
                let stream = self.internal.connect(listener, endpoint, passthrough);
                let refused = || immediate(&io::Error::from_raw_os_error(22), address);
                let mut stream = stream.ok_or_else(refused)?;
                // As in Envoy, a listener that has no use for the connection refuses it before it is connected.
                tokio::task::yield_now().await;
                if stream.is_refused() {
                    return Err(refused());
                }
                Ok((Stream::Internal(stream), Address::internal_client(), address.clone()))
            }
        }
    }
}

async fn unix(path: &str) -> io::Result<UnixStream> {
    match path.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
        None => UnixStream::connect(path).await,
    }
}

async fn tcp(
    cluster: &ClusterInfo,
    original: Option<OriginalSource>,
    to: SocketAddr,
) -> Result<TcpStream, ConnectFailure> {
    let options = &cluster.connect;
    let address = Address::Ip(to);
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(|e| immediate(&e, &address))?;
    let raw = socket2::SockRef::from(&socket);
    if options.freebind {
        let _ = match to.is_ipv4() {
            true => raw.set_freebind_v4(true),
            false => raw.set_freebind_v6(true),
        };
    }
    if let Some(keepalive) = options.keepalive {
        let _ = keepalive.apply(&raw);
    }
    let option_failed = |error: io::Error| {
        tracing::debug!(cluster = %cluster.name, %error, "Setting option on socket failed");
        ConnectFailure::Local { reason: "".into() }
    };
    let source = options.source(to);
    for option in source.map_or(&options.socket_options, |s| &s.socket_options) {
        option
            .apply(&socket, SocketState::StatePrebind, Some(to.is_ipv4()))
            .map_err(option_failed)?;
    }
    if let Some(original) = original {
        original.prepare(&raw).map_err(option_failed)?;
    }
    if let Some(source) = original.map(|o| o.to_bind()).or(source.map(|s| s.address)) {
        socket.bind(source).map_err(|e| {
            cluster.stats.local().bind_errors.inc();
            ConnectFailure::Local {
                reason: format!("failed to bind to {source}: {}", errno_text(&e)).into(),
            }
        })?;
    }
    // Requests are written whole: waiting for more bytes only adds delay.
    let _ = socket.set_nodelay(true);
    socket.connect(to).await.map_err(|e| match e.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => {
            immediate(&e, &address)
        }
        _ => ConnectFailure::Remote {
            reason: format!("delayed connect error: {}", errno_text(&e)).into(),
        },
    })
}

fn immediate(error: &io::Error, address: &Address) -> ConnectFailure {
    ConnectFailure::Remote {
        reason: format!(
            "immediate connect error: {}|remote address:{address}",
            errno_text(error)
        )
        .into(),
    }
}
