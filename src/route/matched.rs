//! A route that was chosen for one request, and what the router asks of it.

use std::{ops::Deref, sync::Arc};

use http::HeaderValue;

use super::{ClusterWeight, HashOutcome, MetadataMatch, Route, RouteTable, VirtualHost};
use crate::http::{RequestHead, ResponseHead, StreamInfo, filter::RouteConfig};

/// A route that matched: keeps its table alive for the stream's life. Cheap to clone.
#[derive(Clone)]
pub struct RouteMatch {
    table: Arc<RouteTable>,
    vhost: u32,
    /// `u32::MAX`: the virtual host's https redirect.
    route: u32,
    cluster: Chosen,
}

#[derive(Clone)]
enum Chosen {
    /// As the route says, or none at all.
    Route,
    /// An element of the weighted clusters.
    Weighted(u32),
}

impl RouteMatch {
    /// The table it is of.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The virtual host.
    pub fn virtual_host(&self) -> &VirtualHost {
        // Indices come from `RouteTable::find` on this very table.
        &self.table.vhosts[self.vhost as usize]
    }

    /// The chosen weighted cluster, when the route has some.
    pub fn weighted_cluster(&self) -> Option<&ClusterWeight> {
        None
    }

    /// Name of the cluster the request goes to; empty when a header should have named it and does not.
    pub fn cluster_name(&self) -> &str {
        ""
    }

    /// `metadata_match` of the weighted cluster, or else of the route.
    pub fn metadata_match(&self) -> Option<&Arc<MetadataMatch>> {
        None
    }

    /// The hash of the request by the route's hash policies.
    pub fn hash(&self, _head: &RequestHead, _info: &StreamInfo) -> HashOutcome {
        HashOutcome::default()
    }

    /// Mutations of all levels and the rewrites of host and path; called once, after the host was picked.
    /// `keep_original` sets `x-envoy-original-path` and `x-envoy-original-host` (`!suppress_envoy_headers`).
    pub fn finalize_request_headers(&self, _head: &mut RequestHead, _info: &StreamInfo, _keep_original: bool) {}

    /// `auto_host_rewrite`: sets the host to the upstream host's name, for each attempt; no effect when the
    /// route does not ask for it or `hostname` is empty.
    pub fn rewrite_host(&self, _head: &mut RequestHead, _hostname: &str, _keep_original: bool) {}

    /// Mutations of the response of all levels.
    pub fn finalize_response_headers(
        &self,
        _head: &mut ResponseHead,
        _request: Option<&RequestHead>,
        _info: &StreamInfo,
    ) {
    }

    /// The `location` of a redirect; none when the action is no redirect.
    pub fn redirect_location(&self, _head: &RequestHead) -> Option<HeaderValue> {
        None
    }

    /// Name of the first virtual cluster that matches, `other` when none does, none when there are none.
    pub fn virtual_cluster(&self, _head: &RequestHead) -> Option<Arc<str>> {
        None
    }

    /// The most specific per-route configuration of the filter of this name: weighted cluster, route, virtual
    /// host, route configuration.
    pub fn filter_config(&self, _filter: &str) -> Option<&RouteConfig> {
        None
    }

    /// All configurations of the filter, least specific first, for filters that merge them.
    pub fn filter_configs_all(&self, _filter: &str) -> impl Iterator<Item = &RouteConfig> {
        None.into_iter()
    }

    /// Whether the filter is disabled (true) or enabled (false) here; none when no level says.
    pub fn filter_disabled(&self, _filter: &str) -> Option<bool> {
        None
    }
}

impl Deref for RouteMatch {
    type Target = Route;

    fn deref(&self) -> &Route {
        let vhost = self.virtual_host();
        vhost.routes.get(self.route as usize).unwrap_or(&vhost.tls_redirect)
    }
}
