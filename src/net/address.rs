//! Where a connection comes from or goes to (`envoy.config.core.v3.Address`).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// An address of a listener, a peer or an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IPv4 or IPv6 with port.
    Ip(SocketAddr),
    /// A unix socket: its path, or `@name` for an abstract one (`Pipe.path`).
    Pipe(Arc<str>),
    /// An internal listener in this process (`EnvoyInternalAddress`).
    Internal {
        /// Name of the internal listener.
        listener: Arc<str>,
        /// `endpoint_id`: tells apart endpoints behind the same listener.
        endpoint: Arc<str>,
    },
}

impl Address {
    /// The IP, when there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(a) => Some(a.ip()),
            Self::Pipe(_) | Self::Internal { .. } => None,
        }
    }

    /// The address of an internal listener.
    pub fn internal(listener: &str) -> Self {
        Self::Internal {
            listener: listener.into(),
            endpoint: "".into(),
        }
    }

    /// The address of whoever connects to an internal listener.
    pub fn internal_client() -> Self {
        Self::internal("internal_client_address")
    }

    /// The port, when there is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(a) => Some(a.port()),
            Self::Pipe(_) | Self::Internal { .. } => None,
        }
    }
}

/// As Envoy prints it in logs and `/clusters`: `1.2.3.4:80`, `[::1]:80`, `/path`, `envoy://listener/endpoint`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(a) => a.fmt(f),
            Self::Pipe(p) => f.write_str(p),
            Self::Internal { listener, endpoint } => write!(f, "envoy://{listener}/{endpoint}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(a: SocketAddr) -> Self {
        Self::Ip(a)
    }
}

/// The machine's address as others see it: that of the interface packets leave by; loopback when there is none.
/// Looked up once.
pub fn local_address() -> IpAddr {
    static LOCAL: std::sync::OnceLock<IpAddr> = std::sync::OnceLock::new();
    // Connecting a datagram socket sends nothing; it only picks the route (to a documentation network).
    let route = || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    *LOCAL.get_or_init(|| route().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |a: SocketAddr| a.ip()))
}
