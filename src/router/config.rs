//! `envoy.extensions.filters.http.router.v3.Router` -> [`RouterConfig`].

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use xds_protos::{
    envoy::extensions::filters::http::router::v3::{Router as Proto, router::UpstreamAccessLogOptions},
    google::protobuf::Any,
};

use crate::{
    access_log::AccessLogs,
    config::{BuildCx, ConfigResult, DurationExt, unpack},
    http::hcm::RouterStats,
    net::local_address,
    runtime::KnownKeys,
    stats::Stats,
    upstream::config::{UpstreamHttpFilters, http_filter_chain},
};

/// The router's configuration. It counts in its connection manager's statistics.
pub struct RouterConfig {
    /// `suppress_envoy_headers`: no `x-envoy-*` headers are added.
    pub suppress_envoy_headers: bool,
    /// `respect_expected_rq_timeout`
    pub respect_expected_rq_timeout: bool,
    /// `dynamic_stats`: per-code statistics; default true.
    pub dynamic_stats: bool,
    /// `strict_check_headers`
    pub strict_check_headers: Vec<HeaderName>,
    /// `suppress_grpc_request_failure_code_stats`: gRPC requests count no codes.
    pub suppress_grpc_code_stats: bool,
    /// `start_child_span`: attempts have spans of their own.
    pub start_child_span: bool,
    /// This proxy's zone, where it is known.
    pub zone: Option<String>,
    /// `upstream_http_filters`: each attempt's, unless its cluster has some.
    pub upstream_filters: UpstreamHttpFilters,
    /// `upstream_log`: a line for each attempt.
    pub upstream_log: AccessLogs,
    /// `upstream_log_options.flush_upstream_log_on_upstream_stream`: another one when it has its connection.
    pub upstream_log_on_stream: bool,
    /// `upstream_log_options.upstream_log_flush_interval`: more lines while it lasts.
    pub upstream_log_interval: Option<Duration>,
    /// Runtime keys of retries.
    pub keys: KnownKeys,
    /// `http.<stat_prefix>.*`
    pub stats: Stats<RouterStats>,
    /// This machine's address: whom mirrored requests come from.
    pub local_address: HeaderValue,
}

impl RouterConfig {
    /// Builds the router of a connection manager whose statistics stand under `stat_prefix`.
    pub fn build(any: &Any, stat_prefix: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = unpack::<Proto>(any, cx)?;
        coverage!(cx, proto => Proto {
            supported {
                dynamic_stats, upstream_log, suppress_envoy_headers, strict_check_headers, respect_expected_rq_timeout,
                upstream_http_filters, suppress_grpc_request_failure_code_stats, upstream_log_options, start_child_span
            }
            ignored {
                reject_connect_request_early_data: "bytes sent before CONNECT is answered wait for the answer",
            }
        });
        let log_options = cx.opt("upstream_log_options", upstream_log_options, |proto, cx| {
            coverage!(cx, proto => UpstreamAccessLogOptions {
                supported { flush_upstream_log_on_upstream_stream, upstream_log_flush_interval }
            });
            let interval = upstream_log_flush_interval.enabled_or(Duration::ZERO);
            Ok((flush_upstream_log_on_upstream_stream, interval))
        })?;
        let (upstream_log_on_stream, upstream_log_interval) = log_options.unwrap_or_default();
        let zone = cx.server.node.locality.as_ref().map(|l| l.zone.clone());
        Ok(Self {
            suppress_grpc_code_stats: suppress_grpc_request_failure_code_stats,
            upstream_log_on_stream,
            upstream_log_interval,
            start_child_span,
            zone: zone.filter(|zone| !zone.is_empty()),
            upstream_filters: http_filter_chain("upstream_http_filters", upstream_http_filters, cx)?,
            suppress_envoy_headers,
            respect_expected_rq_timeout,
            dynamic_stats: dynamic_stats.is_none_or(|v| v.value),
            strict_check_headers: strict_check_headers
                .into_iter()
                .filter_map(|h| h.parse().ok())
                .collect(),
            upstream_log: cx.field("upstream_log", |cx| AccessLogs::build(upstream_log, cx))?,
            keys: cx.server.runtime.known.clone(),
            stats: cx.server.stats.scope(stat_prefix).block(),
            local_address: HeaderValue::try_from(local_address().to_string()).map_err(|e| cx.error(e.to_string()))?,
        })
    }
}
