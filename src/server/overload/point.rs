//! Load-shed points: places on the way of a connection or a request where it can be turned away.

use super::Level;
use crate::stats::{Counter, Gauge, Scope};

/// `envoy.load_shed_points.*` that are looked at here. Others are accepted, as in Envoy, and nobody asks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Point {
    /// A connection is accepted: it is closed.
    TcpListenerAccept,
    /// The first bytes for an HTTP connection manager: the connection is closed.
    HcmCodecCreation,
    /// A request's head is read: 503.
    HcmDecodeHeaders,
    /// Bytes for HTTP/1: 500.
    Http1AbortDispatch,
    /// A request of HTTP/2: the client is told to go; of HTTP/1: its response is the last.
    GoAwayOnDispatch,
    /// A request: the client is told to go, and its connection ends.
    GoAwayAndCloseOnDispatch,
    /// The router has found the cluster of a request: 503.
    DownstreamFilterCheck,
    /// A pool would open a connection: the request fails.
    PoolNewConnection,
    /// A tunnel is about to get its connection: the client's is closed.
    TcpProxyUpstreamConnect,
    /// Bytes for a tunnel: it is closed.
    TcpProxyOnData,
}

impl Point {
    /// How many there are.
    pub const COUNT: usize = 10;

    const ALL: [Self; Self::COUNT] = [
        Self::TcpListenerAccept,
        Self::HcmCodecCreation,
        Self::HcmDecodeHeaders,
        Self::Http1AbortDispatch,
        Self::GoAwayOnDispatch,
        Self::GoAwayAndCloseOnDispatch,
        Self::DownstreamFilterCheck,
        Self::PoolNewConnection,
        Self::TcpProxyUpstreamConnect,
        Self::TcpProxyOnData,
    ];

    /// Envoy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpListenerAccept => "envoy.load_shed_points.tcp_listener_accept",
            Self::HcmCodecCreation => "envoy.load_shed_points.hcm_ondata_creating_codec",
            Self::HcmDecodeHeaders => "envoy.load_shed_points.http_connection_manager_decode_headers",
            Self::Http1AbortDispatch => "envoy.load_shed_points.http1_server_abort_dispatch",
            Self::GoAwayOnDispatch => "envoy.load_shed_points.http2_server_go_away_on_dispatch",
            Self::GoAwayAndCloseOnDispatch => "envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch",
            Self::DownstreamFilterCheck => "envoy.load_shed_points.http_downstream_filter_check",
            Self::PoolNewConnection => "envoy.load_shed_points.connection_pool_new_connection",
            Self::TcpProxyUpstreamConnect => "envoy.load_shed_points.tcp_proxy_upstream_connect",
            Self::TcpProxyOnData => "envoy.load_shed_points.tcp_proxy_on_data",
        }
    }

    /// The point of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }
}

/// A configured load-shed point.
pub struct LoadShedPoint {
    level: Level,
    scale_percent: Gauge,
    shed: Counter,
}

impl LoadShedPoint {
    /// A point that sheds nothing yet; `scope` is `overload.`
    pub(super) fn new(name: &str, scope: &Scope) -> Self {
        Self {
            level: Level::default(),
            scale_percent: scope.gauge(&format!("{name}.scale_percent")),
            shed: scope.counter(&format!("{name}.shed_load_count")),
        }
    }

    /// Whether load is to be shed now; counted then.
    #[inline]
    pub fn sheds(&self) -> bool {
        let sheds = self.level.happens();
        if sheds {
            self.shed.inc();
        }
        sheds
    }

    pub(super) fn set(&self, level: f32) {
        self.level.set(level);
        self.scale_percent.set((level * 100.0) as u64);
    }
}
