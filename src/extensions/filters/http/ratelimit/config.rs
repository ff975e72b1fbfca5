//! `RateLimit` and `RateLimitPerRoute`.

use std::time::Duration;

use http::StatusCode;
use xds_protos::envoy::{
    config::core::v3::RuntimeFractionalPercent as RuntimeFractionalPercentProto,
    extensions::filters::http::ratelimit::v3::{
        RateLimit as Proto, RateLimitPerRoute,
        rate_limit::XRateLimitHeadersRfcVersion,
        rate_limit_per_route::{OverrideOptions, VhRateLimitsOptions},
    },
    r#type::v3::HttpStatus,
};

use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent, duration},
    extensions::{
        filters::{
            common::rate_limit_service::{TIMEOUT, service},
            http::local_ratelimit::config::{own_limits, refusal},
        },
        grpc_service::Target,
    },
    route::{HeaderMutations, rate_limit::RateLimitPolicy},
    runtime::RuntimeFractionalPercent,
};

/// The filter's configuration.
pub(super) struct Config {
    pub domain: String,
    pub stage: u32,
    /// Whether requests from inside and from outside are looked at.
    pub requests: (bool, bool),
    pub timeout: Duration,
    pub service: Target,
    pub deny_on_failure: RuntimeFractionalPercent,
    pub resource_exhausted: bool,
    pub x_ratelimit_headers: bool,
    pub x_envoy_ratelimited: bool,
    pub retry_after: bool,
    pub limited_status: StatusCode,
    pub error_status: StatusCode,
    pub response_headers: HeaderMutations,
    pub enabled: RuntimeFractionalPercent,
    pub enforced: RuntimeFractionalPercent,
    pub rate_limits: RateLimitPolicy,
    pub metadata_namespace: String,
    pub stats: StatNames,
}

/// Names below `cluster.<route's cluster>.`
pub(super) struct StatNames {
    pub ok: String,
    pub error: String,
    pub over_limit: String,
    pub failure_mode_allowed: String,
}

/// Which rate limits of the virtual host count beside the route's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfVirtualHost {
    /// Only when the route has none.
    Override,
    Include,
    Ignore,
}

/// What a route says.
pub(super) struct PerRoute {
    pub of_virtual_host: OfVirtualHost,
    pub rate_limits: RateLimitPolicy,
    pub domain: String,
}

impl Config {
    /// Builds the filter's configuration.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let x_headers = proto.enable_x_ratelimit_headers();
        coverage!(cx, proto => Proto {
            supported {
                domain, stage, request_type, timeout, failure_mode_deny, rate_limited_as_resource_exhausted,
                rate_limit_service, enable_x_ratelimit_headers, disable_x_envoy_ratelimited_header,
                rate_limited_status, response_headers_to_add, status_on_error, stat_prefix, filter_enabled,
                filter_enforced, failure_mode_deny_percent, rate_limits, metadata_namespace,
                enable_retry_after_header,
            }
        });
        // Read by its accessor.
        let _ = enable_x_ratelimit_headers;
        own_limits(&rate_limits, cx)?;
        let deny = if failure_mode_deny {
            FractionalPercent::FULL
        } else {
            FractionalPercent::ZERO
        };
        Ok(Self {
            domain,
            stage,
            requests: (request_type != "external", request_type != "internal"),
            timeout: timeout.as_ref().map_or(TIMEOUT, duration),
            service: cx.required("rate_limit_service", rate_limit_service, service)?,
            deny_on_failure: cx.field("failure_mode_deny_percent", |cx| {
                RuntimeFractionalPercent::build_or(failure_mode_deny_percent, deny, cx)
            })?,
            resource_exhausted: rate_limited_as_resource_exhausted,
            x_ratelimit_headers: x_headers == XRateLimitHeadersRfcVersion::DraftVersion03,
            x_envoy_ratelimited: !disable_x_envoy_ratelimited_header,
            retry_after: enable_retry_after_header,
            limited_status: cx
                .opt("rate_limited_status", rate_limited_status, refusal)?
                .unwrap_or(StatusCode::TOO_MANY_REQUESTS),
            error_status: cx
                .opt("status_on_error", status_on_error, any_status)?
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            response_headers: HeaderMutations::build(
                ("response_headers_to_add", ""),
                response_headers_to_add,
                Vec::new(),
                cx,
            )?,
            enabled: cx.field("filter_enabled", |cx| {
                share(filter_enabled, "ratelimit.http_filter_enabled", cx)
            })?,
            enforced: cx.field("filter_enforced", |cx| {
                share(filter_enforced, "ratelimit.http_filter_enforcing", cx)
            })?,
            rate_limits: RateLimitPolicy::build(rate_limits, cx)?,
            metadata_namespace: Some(metadata_namespace)
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "envoy.filters.http.ratelimit".into()),
            stats: StatNames::new(&stat_prefix),
        })
    }
}

/// A share of requests; one that is not given is all, unless a key that Envoy has built in says otherwise.
fn share(
    proto: Option<RuntimeFractionalPercentProto>,
    key: &str,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<RuntimeFractionalPercent> {
    match proto {
        Some(proto) => RuntimeFractionalPercent::build(proto, cx),
        None => Ok(RuntimeFractionalPercent::with_key(FractionalPercent::FULL, key, cx)),
    }
}

impl StatNames {
    fn new(prefix: &str) -> Self {
        let name = |what: &str| match prefix {
            "" => format!("ratelimit.{what}"),
            _ => format!("ratelimit.{prefix}.{what}"),
        };
        Self {
            ok: name("ok"),
            error: name("error"),
            over_limit: name("over_limit"),
            failure_mode_allowed: name("failure_mode_allowed"),
        }
    }
}

fn any_status(proto: HttpStatus, cx: &mut BuildCx<'_>) -> ConfigResult<StatusCode> {
    coverage!(cx, proto => HttpStatus { supported { code } });
    Ok(u16::try_from(code)
        .ok()
        .filter(|code| (100..=511).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

impl PerRoute {
    /// Builds a route's configuration.
    pub fn build(proto: RateLimitPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let (of_host, over) = (proto.vh_rate_limits(), proto.override_option());
        coverage!(cx, proto => RateLimitPerRoute {
            supported { vh_rate_limits, override_option, rate_limits, domain }
        });
        // Read by their accessors.
        let _ = (vh_rate_limits, override_option);
        own_limits(&rate_limits, cx)?;
        Ok(Self {
            of_virtual_host: match (over, of_host) {
                (OverrideOptions::IncludePolicy, _) | (OverrideOptions::Default, VhRateLimitsOptions::Include) => {
                    OfVirtualHost::Include
                }
                (OverrideOptions::IgnorePolicy, _) | (OverrideOptions::Default, VhRateLimitsOptions::Ignore) => {
                    OfVirtualHost::Ignore
                }
                (OverrideOptions::OverridePolicy, _) | (OverrideOptions::Default, VhRateLimitsOptions::Override) => {
                    OfVirtualHost::Override
                }
            },
            rate_limits: RateLimitPolicy::build(rate_limits, cx)?,
            domain,
        })
    }
}
