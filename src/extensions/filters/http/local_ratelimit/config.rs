//! `LocalRateLimit`: of a filter, and of a route.

use std::{collections::HashSet, time::Duration};

use http::StatusCode;
use xds_protos::envoy::{
    config::route::v3::RateLimit as RateLimitProto,
    extensions::{
        common::ratelimit::v3::{
            LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion, rate_limit_descriptor::Entry,
        },
        filters::http::local_ratelimit::v3::LocalRateLimit as Proto,
    },
    r#type::v3::{HttpStatus, TokenBucket},
};

use super::limiter::{BucketConfig, DescriptorConfig, Limiter, LimiterConfig};
use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent, duration},
    route::{HeaderMutations, rate_limit::RateLimitPolicy},
    runtime::RuntimeFractionalPercent,
    stats::Stats,
};

crate::stats_block! {
    /// Envoy's `<stat_prefix>.http_local_rate_limit.` statistics
    pub(super) struct LocalRateLimitStats {
        counter enabled, "Requests that were looked at";
        counter enforced, "Requests that were refused";
        counter ok, "Requests below the limit";
        counter rate_limited, "Requests over the limit, refused or not";
        counter shadow_mode, "Requests over a limit that is only watched";
    }
}

/// What a filter or a route says. Buckets are shared by everybody who has it.
pub(super) struct Config {
    pub stats: Stats<LocalRateLimitStats>,
    pub status: StatusCode,
    pub enabled: RuntimeFractionalPercent,
    pub enforced: RuntimeFractionalPercent,
    pub limiter: Limiter,
    /// Of `limiter`, for the limiters of connections.
    pub limits: LimiterConfig,
    pub per_connection: bool,
    pub request_headers: HeaderMutations,
    pub response_headers: HeaderMutations,
    pub stage: u32,
    pub x_ratelimit_headers: bool,
    pub retry_after: bool,
    pub virtual_host_limits: VhRateLimitsOptions,
    pub resource_exhausted: bool,
    /// The filter's own; empty: the route's and the virtual host's.
    pub rate_limits: RateLimitPolicy,
}

impl Config {
    /// Builds either form.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let (x_headers, of_virtual_host) = (proto.enable_x_ratelimit_headers(), proto.vh_rate_limits());
        coverage!(cx, proto => Proto {
            supported {
                stat_prefix, status, token_bucket, filter_enabled, filter_enforced,
                request_headers_to_add_when_not_enforced, response_headers_to_add, descriptors, stage,
                local_rate_limit_per_downstream_connection, enable_x_ratelimit_headers, vh_rate_limits,
                always_consume_default_token_bucket, rate_limited_as_resource_exhausted, rate_limits,
                max_dynamic_descriptors, enable_retry_after_header,
            }
            rejected { local_cluster_rate_limit: "a limit is not shared out over the members of the local cluster" }
        });
        // Read by their accessors.
        let _ = (enable_x_ratelimit_headers, vh_rate_limits);
        let limits = LimiterConfig {
            default: cx.opt("token_bucket", token_bucket, bucket)?,
            descriptors: self::descriptors(descriptors, cx)?,
            always_consume_default: always_consume_default_token_bucket.is_none_or(|b| b.value),
            max_dynamic: max_dynamic_descriptors.map_or(20, |v| v.value as usize),
        };
        Ok(Self {
            stats: cx
                .server
                .stats
                .scope(&format!("{stat_prefix}.http_local_rate_limit"))
                .block(),
            status: cx
                .opt("status", status, refusal)?
                .unwrap_or(StatusCode::TOO_MANY_REQUESTS),
            enabled: RuntimeFractionalPercent::build_or(filter_enabled, FractionalPercent::ZERO, cx)?,
            enforced: RuntimeFractionalPercent::build_or(filter_enforced, FractionalPercent::ZERO, cx)?,
            limiter: Limiter::new(&limits),
            limits,
            per_connection: local_rate_limit_per_downstream_connection,
            request_headers: HeaderMutations::build(
                ("request_headers_to_add_when_not_enforced", ""),
                request_headers_to_add_when_not_enforced,
                Vec::new(),
                cx,
            )?,
            response_headers: HeaderMutations::build(
                ("response_headers_to_add", ""),
                response_headers_to_add,
                Vec::new(),
                cx,
            )?,
            stage,
            x_ratelimit_headers: x_headers == XRateLimitHeadersRfcVersion::DraftVersion03,
            retry_after: enable_retry_after_header,
            virtual_host_limits: of_virtual_host,
            resource_exhausted: rate_limited_as_resource_exhausted,
            rate_limits: {
                own_limits(&rate_limits, cx)?;
                if let Some(i) = rate_limits.iter().position(|l| l.limit.is_some()) {
                    return Err(cx.error_at(&format!("rate_limits[{i}]"), "'limit' field is not supported"));
                }
                RateLimitPolicy::build(rate_limits, cx)?
            },
        })
    }
}

/// What Envoy refuses in the `rate_limits` that stand in a filter's configuration.
pub(in crate::extensions::filters::http) fn own_limits(
    limits: &[RateLimitProto],
    cx: &mut BuildCx<'_>,
) -> ConfigResult<()> {
    let of_routes = |l: &RateLimitProto| l.stage.is_some() || !l.disable_key.is_empty();
    match limits.iter().position(of_routes) {
        None => Ok(()),
        Some(i) => Err(cx.error_at(
            &format!("rate_limits[{i}]"),
            "'stage' field and 'disable_key' field are not supported",
        )),
    }
}

/// A status of 400 or more; smaller ones stand for 429.
pub(in crate::extensions::filters::http) fn refusal(
    proto: HttpStatus,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<StatusCode> {
    coverage!(cx, proto => HttpStatus { supported { code } });
    Ok(u16::try_from(code)
        .ok()
        .filter(|code| *code >= 400)
        .and_then(|code| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::TOO_MANY_REQUESTS))
}

fn bucket(proto: TokenBucket, cx: &mut BuildCx<'_>) -> ConfigResult<BucketConfig> {
    filled(proto, "local rate limit token bucket fill timer must be >= 50ms", cx)
}

fn filled(proto: TokenBucket, too_short: &str, cx: &mut BuildCx<'_>) -> ConfigResult<BucketConfig> {
    coverage!(cx, proto => TokenBucket { supported { max_tokens, tokens_per_fill, fill_interval } });
    let interval = fill_interval.as_ref().map_or(Duration::ZERO, duration);
    if interval < Duration::from_millis(50) {
        return Err(cx.error_at("fill_interval", too_short));
    }
    Ok(BucketConfig {
        max: max_tokens,
        per_fill: tokens_per_fill.map_or(1, |v| v.value).max(1),
        interval,
    })
}

fn descriptors(protos: Vec<LocalRateLimitDescriptor>, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<DescriptorConfig>> {
    let mut seen = HashSet::new();
    cx.each("descriptors", protos, |proto, cx| {
        coverage!(cx, proto => LocalRateLimitDescriptor { supported { entries, token_bucket, shadow_mode } });
        let entries: Vec<_> = entries.into_iter().map(|Entry { key, value }| (key, value)).collect();
        if !seen.insert(entries.clone()) {
            let text: Vec<_> = entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
            return Err(cx.error(format!(
                "duplicate descriptor in the local rate descriptor: {}",
                text.join(", ")
            )));
        }
        Ok(DescriptorConfig {
            entries,
            bucket: cx.required("token_bucket", token_bucket, |proto, cx| {
                filled(
                    proto,
                    "local rate limit descriptor token bucket fill timer must be >= 50ms",
                    cx,
                )
            })?,
            shadow: shadow_mode,
        })
    })
}
