//! `RouteAction`: where a request goes and how.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};

use super::{
    ClusterSpecifier, HashPolicies, HedgePolicy, MetadataMatch, MirrorPolicy, RetryPolicy, rate_limit::RateLimitPolicy,
};

/// `RoutingPriority`: which circuit breakers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Priority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// Forwards to a cluster.
#[derive(Debug, Clone)]
pub struct RouteAction {
    /// How the cluster is chosen; the choice itself is in [`RouteMatch::cluster_name`](super::RouteMatch::cluster_name).
    pub cluster: ClusterSpecifier,
    /// Status when the cluster is not known; default 503.
    pub cluster_not_found: StatusCode,
    /// `metadata_match["envoy.lb"]` of the route; weighted clusters add theirs
    /// ([`RouteMatch::metadata_match`](super::RouteMatch::metadata_match)).
    pub metadata_match: Option<Arc<MetadataMatch>>,
    /// All time limits.
    pub timeouts: Timeouts,
    /// The route's or else the virtual host's policy.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// The route's or else the virtual host's policy.
    pub hedge_policy: Option<HedgePolicy>,
    /// Mirrors of the route, else of the virtual host, else of the route configuration.
    pub mirrors: Arc<[MirrorPolicy]>,
    /// Which circuit breakers count.
    pub priority: Priority,
    /// The route's own rate limits.
    pub rate_limits: RateLimitPolicy,
    /// Whether the virtual host's rate limits count besides the route's.
    pub include_vh_rate_limits: bool,
    /// What is hashed for ring hash and Maglev.
    pub hash_policy: HashPolicies,
    /// `upgrade_configs`: lower-case type, enabled. They override the connection manager's.
    pub upgrades: Vec<(String, bool)>,
    /// `connect_config`: CONNECT (or CONNECT-UDP) is terminated here.
    pub connect: Option<ConnectConfig>,
    /// Internal redirects; none: passed through.
    pub internal_redirect: Option<InternalRedirectPolicy>,
    /// `auto_host_rewrite`: the host becomes the upstream host's name; the router calls
    /// [`RouteMatch::rewrite_host`](super::RouteMatch::rewrite_host) for each attempt.
    pub auto_host_rewrite: bool,
    /// `append_x_forwarded_host`
    pub append_x_forwarded_host: bool,
}

impl RouteAction {
    /// Whether this upgrade type is enabled or disabled on the route; none when the route does not say.
    pub fn upgrade(&self, upgrade_type: &str) -> Option<bool> {
        self.upgrades
            .iter()
            .find(|(t, _)| t.eq_ignore_ascii_case(upgrade_type))
            .map(|(_, enabled)| *enabled)
    }
}

/// Time limits of a route. Zero disables a limit that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `timeout`: the whole request, retries included; default 15 s, zero: no limit.
    pub global: Duration,
    /// `idle_timeout`: replaces the connection manager's `stream_idle_timeout`.
    pub idle: Option<Duration>,
    /// `flush_timeout`: replaces the connection manager's `stream_flush_timeout`.
    pub flush: Option<Duration>,
    /// `max_grpc_timeout` (deprecated): upper bound of `grpc-timeout`; zero: no bound.
    pub max_grpc: Option<Duration>,
    /// `grpc_timeout_offset` (deprecated): taken off a `grpc-timeout`.
    pub grpc_offset: Option<Duration>,
    /// `max_stream_duration`; when there is one, the two deprecated gRPC limits have no effect.
    pub max_stream_duration: Option<MaxStreamDuration>,
}

/// `MaxStreamDuration`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxStreamDuration {
    /// `max_stream_duration`: overrides the connection manager's; zero: no limit.
    pub max: Option<Duration>,
    /// `grpc_timeout_header_max`: when set, `grpc-timeout` is obeyed up to this; zero: no bound.
    pub grpc_max: Option<Duration>,
    /// `grpc_timeout_header_offset`
    pub grpc_offset: Option<Duration>,
}

/// `UpgradeConfig.ConnectConfig`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectConfig {
    /// PROXY protocol version to send upstream (1 or 2).
    pub proxy_protocol: Option<u8>,
    /// Also terminates POST.
    pub allow_post: bool,
}

/// `InternalRedirectPolicy`
#[derive(Debug, Clone)]
pub struct InternalRedirectPolicy {
    /// Redirects followed for one request; default 1.
    pub max_internal_redirects: u32,
    /// Statuses that are followed; default 302.
    pub response_codes: Vec<StatusCode>,
    /// Whether a redirect may change the scheme.
    pub allow_cross_scheme: bool,
    /// Response headers copied into the new request.
    pub headers_to_copy: Vec<HeaderName>,
    /// Predicates by name, in order.
    pub predicates: Vec<super::RetryExtension>,
}
