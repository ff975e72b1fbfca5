//! One virtual host.

use std::sync::Arc;

use xds_protos::envoy::config::core::v3::Metadata;

use super::{HeaderMutations, PerFilterConfigs, Route, rate_limit::RateLimitPolicy};
use crate::matching::HeaderMatcher;

/// One virtual host: its routes, and what they have in common.
#[derive(Debug)]
pub struct VirtualHost {
    /// `name`, as statistics show it.
    pub name: Arc<str>,
    /// `include_request_attempt_count`: `x-envoy-attempt-count` upstream.
    pub include_request_attempt_count: bool,
    /// `include_attempt_count_in_response`: `x-envoy-attempt-count` downstream.
    pub include_attempt_count_in_response: bool,
    /// `include_is_timeout_retry_header`: `x-envoy-is-timeout-retry` upstream.
    pub include_is_timeout_retry_header: bool,
    /// `metadata`
    pub metadata: Option<Arc<Metadata>>,
    /// The virtual host's rate limits.
    pub rate_limits: RateLimitPolicy,
    /// Virtual clusters in order.
    pub virtual_clusters: Vec<VirtualCluster>,
    /// Header mutations of the request on this level.
    pub request: HeaderMutations,
    /// Header mutations of the response on this level.
    pub response: HeaderMutations,
    /// Per-filter configuration on this level.
    pub filters: PerFilterConfigs,
    pub(super) routes: Vec<Route>,
    /// The route of requests that `require_tls` sends to https.
    pub(super) tls_redirect: Route,
}

/// `VirtualCluster`: statistics of the requests that match.
#[derive(Debug)]
pub struct VirtualCluster {
    /// Name, as statistics show it; `other` is everything else.
    pub name: Arc<str>,
    pub(super) headers: Vec<HeaderMatcher>,
}
