//! What a request wants of its upstream connection.

use std::{rc::Rc, sync::Arc};

use http::Version;

use crate::{
    http::{
        StreamInfo,
        stream_info::{ProxyData, SharedObjects},
    },
    net::OriginalSource,
    upstream::ResourcePriority,
};

/// Filter state of the server name to send.
const SERVER_NAME: &str = "envoy.network.upstream_server_name";
/// Filter state of the names that the peer must have, comma-separated.
const SUBJECT_ALT_NAMES: &str = "envoy.network.upstream_subject_alt_names";
/// Filter state of the ALPN to offer, comma-separated.
const APPLICATION_PROTOCOLS: &str = "envoy.network.application_protocols";

/// What a request wants of its transport socket; connections are only shared between requests that want the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TransportOptions {
    /// Server name instead of the configured one (`auto_sni`).
    pub sni: Option<Arc<str>>,
    /// SANs the peer's certificate must have instead of the configured ones (`auto_san_validation`).
    pub verify_sans: Vec<Arc<str>>,
    /// ALPN instead of the configured one.
    pub alpn: Vec<Arc<str>>,
    /// What a PROXY protocol header tells the upstream of the client; only for clusters that speak it.
    pub proxy: Option<Arc<ProxyData>>,
}

impl TransportOptions {
    /// What filters have left in filter state.
    pub fn of_filter_state(info: &StreamInfo) -> Self {
        Self {
            sni: state(info, SERVER_NAME),
            verify_sans: list(info, SUBJECT_ALT_NAMES),
            alpn: list(info, APPLICATION_PROTOCOLS),
            proxy: None,
        }
    }

    /// None where nothing is wanted: the usual case.
    pub fn wanted(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}

/// A text of the stream's filter state, or else of its connection's.
fn state(info: &StreamInfo, name: &str) -> Option<Arc<str>> {
    if let Some(text) = info.filter_state.get(name).and_then(|object| object.as_text()) {
        return Some(text.as_ref().into());
    }
    let connection = info.connection.filter_state.borrow();
    let text = connection.get(name)?.as_text()?;
    Some(text.as_ref().into())
}

fn list(info: &StreamInfo, name: &str) -> Vec<Arc<str>> {
    let text = state(info, name);
    let parts = text.iter().flat_map(|text| text.split(','));
    parts.map(str::trim).filter(|p| !p.is_empty()).map(Arc::from).collect()
}

/// Which pool of a host a request uses.
#[derive(Debug, Clone, Default)]
pub struct PoolOptions {
    /// Which circuit breakers it counts against.
    pub priority: ResourcePriority,
    /// What the client spoke, for clusters with `use_downstream_protocol_config`.
    pub downstream: Option<Version>,
    /// Transport socket options; none in the usual case.
    pub transport: Option<Arc<TransportOptions>>,
    /// The client's connection, for clusters with `connection_pool_per_downstream_connection`.
    pub connection: Option<u64>,
    /// Where its connections come from, if not from the proxy.
    pub source: Option<OriginalSource>,
    /// Objects of filter state that go along to the connection; none in the usual case.
    pub shared: Option<Rc<SharedObjects>>,
}
