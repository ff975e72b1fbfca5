//! `BandwidthLimit` -> [`Config`]: of a filter, and of a route.

use std::time::{Duration, Instant};

use http::HeaderName;
use xds_protos::{
    envoy::{
        config::core::v3::RuntimeFeatureFlag as FlagProto,
        extensions::filters::http::bandwidth_limit::v3::{BandwidthLimit as Proto, bandwidth_limit::EnableMode},
    },
    google::protobuf::BoolValue,
};

use super::bucket::Bucket;
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    runtime::RuntimeFeatureFlag,
    stats::Stats,
};

/// How often more is taken from the bucket.
const FILL_INTERVAL: Duration = Duration::from_millis(50);

crate::stats_block! {
    /// Envoy's `<stat_prefix>.http_bandwidth_limit.` statistics
    pub(super) struct BandwidthStats {
        counter request_enabled, "Requests under the limit";
        counter response_enabled, "Responses under the limit";
        counter request_enforced, "Times a request had to wait";
        counter response_enforced, "Times a response had to wait";
        counter request_incoming_total_size, "Bytes of requests that came";
        counter response_incoming_total_size, "Bytes of responses that came";
        counter request_allowed_total_size, "Bytes of requests that went on";
        counter response_allowed_total_size, "Bytes of responses that went on";
        gauge request_pending, "Requests on their way";
        gauge response_pending, "Responses on their way";
        gauge request_incoming_size, "Bytes of a request that came last";
        gauge response_incoming_size, "Bytes of a response that came last";
        gauge request_allowed_size, "Bytes of a request that went on last";
        gauge response_allowed_size, "Bytes of a response that went on last";
        histogram(ms) request_transfer_duration, "How long requests took";
        histogram(ms) response_transfer_duration, "How long responses took";
    }
}

/// A limit, shared by everybody who has it.
pub(super) struct Config {
    pub stats: Stats<BandwidthStats>,
    pub requests: bool,
    pub responses: bool,
    pub enabled: RuntimeFeatureFlag,
    pub bucket: Bucket,
    pub fill_interval: Duration,
    /// Set when trailers tell of the delays.
    pub trailers: Option<Trailers>,
}

/// Names of the trailers.
#[derive(Debug, Clone)]
pub(super) struct Trailers {
    pub request: HeaderName,
    pub response: HeaderName,
    pub request_filter: HeaderName,
    pub response_filter: HeaderName,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mode = proto.enable_mode();
        coverage!(cx, proto => Proto {
            supported {
                stat_prefix, enable_mode, limit_kbps, fill_interval, runtime_enabled, enable_response_trailers,
                response_trailer_prefix,
            }
        });
        // Read by its accessor.
        let _ = enable_mode;
        let on = mode != EnableMode::Disabled;
        if on && limit_kbps.is_none() {
            cx.ignored("enable_mode", "without limit_kbps there is nothing to limit to");
        }
        // A flag without default is on, for this filter.
        let enabled = runtime_enabled.map(|flag| FlagProto {
            default_value: flag.default_value.or(Some(BoolValue { value: true })),
            ..flag
        });
        let limited = limit_kbps.is_some();
        let limit = limit_kbps.map_or(0, |v| v.value).saturating_mul(1024);
        Ok(Self {
            stats: cx
                .server
                .stats
                .scope(&format!("{stat_prefix}.http_bandwidth_limit"))
                .block(),
            requests: limited && matches!(mode, EnableMode::Request | EnableMode::RequestAndResponse),
            responses: limited && matches!(mode, EnableMode::Response | EnableMode::RequestAndResponse),
            enabled: RuntimeFeatureFlag::build_or(enabled, true, cx)?,
            bucket: Bucket::new(limit, Instant::now()),
            fill_interval: fill_interval.or_duration(FILL_INTERVAL),
            trailers: match enable_response_trailers {
                true => Some(Trailers::build(&response_trailer_prefix, cx)?),
                false => None,
            },
        })
    }
}

impl Trailers {
    fn build(prefix: &str, cx: &BuildCx<'_>) -> ConfigResult<Self> {
        let name = |name: &str| {
            let name = match prefix {
                "" => name.to_owned(),
                prefix => format!("{}-{name}", prefix.to_ascii_lowercase()),
            };
            HeaderName::try_from(name).map_err(|_| cx.error_at("response_trailer_prefix", "not a valid header name"))
        };
        Ok(Self {
            request: name("bandwidth-request-delay-ms")?,
            response: name("bandwidth-response-delay-ms")?,
            request_filter: name("bandwidth-request-filter-delay-ms")?,
            response_filter: name("bandwidth-response-filter-delay-ms")?,
        })
    }
}
