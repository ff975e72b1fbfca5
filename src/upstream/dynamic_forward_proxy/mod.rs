//! The dynamic forward proxy: requests go to whatever host they name.
//!
//! The HTTP filter looks a request's host up in a [`DnsCache`], and waits for it where it is new. The cluster has a
//! host for each name in the cache, which its balancer finds by the same name. With sub-clusters instead of a cache,
//! the filter makes a STRICT_DNS cluster for each name ([`SubClusters`]).

mod authority;
mod breaker;
mod cache;
mod cluster;
mod config;
mod host;
mod sub_clusters;

use std::{borrow::Cow, sync::Arc};

pub use authority::Authority;
pub use breaker::Pending;
pub use cache::{DnsCache, Load};
pub use cluster::{DfpCluster, Following};
pub use config::{CacheOptions, DnsCaches};
pub use host::CachedHost;
pub use sub_clusters::{SubCluster, SubClusterOptions, SubClusters};

use super::{Host, LbContext, WorkerClusters};
use crate::{
    http::{RequestHead, StreamInfo},
    server::ServerContext,
};

/// Filter state that names the host, before the request.
pub const DYNAMIC_HOST: &str = "envoy.upstream.dynamic_host";

/// Filter state with the port of a host that names none.
pub const DYNAMIC_PORT: &str = "envoy.upstream.dynamic_port";

/// How a cluster finds the host of a request.
#[derive(Debug, Clone)]
pub enum DynamicForwardProxy {
    /// `dns_cache_config`: among the names of a cache.
    Cached(Arc<DfpCluster>),
    /// `sub_clusters_config`: in a cluster of the name.
    SubClusters(Arc<SubClusters>),
}

impl DynamicForwardProxy {
    /// Waits until it is known what becomes of a host, which a filter may have seen to before. The error is the
    /// response-code details.
    pub async fn prepare(&self, host: &str, default_port: u16, server: &Arc<ServerContext>) -> Result<(), String> {
        match self {
            Self::Cached(cluster) => cluster.prepare(host, default_port, server).await,
            Self::SubClusters(_) => Ok(()),
        }
    }

    /// Has a host looked up that nobody waits for.
    pub(super) fn load(&self, host: &str, default_port: u16, server: &Arc<ServerContext>) {
        if let Self::Cached(cluster) = self {
            cluster.load(host, default_port, server);
        }
    }

    /// The host of a request. None: there is no such host, or it is not well.
    pub(super) fn pick(
        &self,
        host: &str,
        default_port: u16,
        clusters: &WorkerClusters,
        cx: &LbContext<'_>,
    ) -> Option<Arc<Host>> {
        match self {
            Self::Cached(cluster) => cluster.find(&Authority::key(host, default_port)),
            Self::SubClusters(_) => clusters.get(&SubClusters::name(host, default_port))?.choose(cx),
        }
    }
}

/// The host that a request or a connection asks for, and the port where it names none: by filter state, the
/// authority, or the server name of TLS.
pub fn dynamic_host<'a>(head: Option<&'a RequestHead>, info: &'a StreamInfo, default_port: u16) -> (Cow<'a, str>, u16) {
    let text = |name: &str| -> Option<Cow<'a, str>> {
        match info.filter_state.get(name) {
            Some(own) => own.as_text(),
            // The connection's changes while streams look at it.
            None => {
                let state = info.connection.filter_state.borrow();
                let text = state.get(name)?.as_text()?;
                Some(Cow::Owned(text.into_owned()))
            }
        }
    };
    let port = text(DYNAMIC_PORT)
        .and_then(|port| port.parse::<u16>().ok())
        .filter(|port| *port > 0);
    let host = match (text(DYNAMIC_HOST), head) {
        (Some(host), _) => host,
        (None, Some(head)) => head.host().into(),
        (None, None) => info.connection.server_name.as_deref().unwrap_or_default().into(),
    };
    (host, port.unwrap_or(default_port))
}

/// How a failure to resolve is told: its words without white space.
pub fn resolution_failure(details: &str) -> String {
    format!(
        "dns_resolution_failure{{{}}}",
        details.replace(char::is_whitespace, "_")
    )
}

#[cfg(test)]
mod tests;
