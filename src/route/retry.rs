//! Retry and hedge policies as the router runs them (`RetryPolicy`, `HedgePolicy`).

use std::{ops::BitOr, time::Duration};

use http::HeaderName;
use xds_protos::envoy::config::{
    core::v3::TypedExtensionConfig,
    route::v3::{HedgePolicy as ProtoHedge, RetryPolicy as ProtoRetry, retry_policy as proto},
};

use super::plugins::{self, HostPredicate, PreviousPriorities};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, duration, plain, positive},
    http::{RequestHead, ResponseHead},
    matching::HeaderMatcher,
};

/// A set of retry conditions (`retry_on`, `x-envoy-retry-on`, `x-envoy-retry-grpc-on`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($($(#[$doc:meta])* $family:ident $name:ident $bit:literal $token:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            const TABLE: &'static [(Family, &'static str, Self)] = &[$((Family::$family, $token, Self::$name)),*];
        }
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Http,
    Grpc,
}

conditions! {
    /// Any 5xx, a reset, or no response at all.
    Http ON_5XX 0 "5xx";
    /// 502, 503 or 504.
    Http GATEWAY_ERROR 1 "gateway-error";
    /// The upstream connection could not be made.
    Http CONNECT_FAILURE 2 "connect-failure";
    /// 409.
    Http RETRIABLE_4XX 3 "retriable-4xx";
    /// The upstream reset the stream with REFUSED_STREAM.
    Http REFUSED_STREAM 4 "refused-stream";
    /// gRPC status 1.
    Grpc GRPC_CANCELLED 5 "cancelled";
    /// gRPC status 4.
    Grpc GRPC_DEADLINE_EXCEEDED 6 "deadline-exceeded";
    /// gRPC status 8.
    Grpc GRPC_RESOURCE_EXHAUSTED 7 "resource-exhausted";
    /// gRPC status 14.
    Grpc GRPC_UNAVAILABLE 8 "unavailable";
    /// gRPC status 13.
    Grpc GRPC_INTERNAL 9 "internal";
    /// A status listed in `retriable_status_codes` or `x-envoy-retriable-status-codes`.
    Http RETRIABLE_STATUS_CODES 10 "retriable-status-codes";
    /// No response at all: reset, timeout, disconnect.
    Http RESET 11 "reset";
    /// A response header that one of `retriable_headers` matches.
    Http RETRIABLE_HEADERS 12 "retriable-headers";
    /// The response has `x-envoy-ratelimited`.
    Http ENVOY_RATE_LIMITED 13 "envoy-ratelimited";
    /// An HTTP/3 request failed after its connection was made.
    Http HTTP3_POST_CONNECT_FAILURE 14 "http3-post-connect-failure";
    /// Reset before the request's head was sent.
    Http RESET_BEFORE_REQUEST 15 "reset-before-request";
}

impl RetryOn {
    /// No condition.
    pub const NONE: Self = Self(0);

    /// Whether any of `conditions` is in the set.
    pub fn has(self, conditions: Self) -> bool {
        self.0 & conditions.0 != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Parses the tokens of `retry_on` and `x-envoy-retry-on`; false when one of them is not known.
    pub fn parse_http(tokens: &str) -> (Self, bool) {
        Self::parse(tokens, Family::Http)
    }

    /// Parses the tokens of `x-envoy-retry-grpc-on` (also allowed in `retry_on`); false when one is not known.
    pub fn parse_grpc(tokens: &str) -> (Self, bool) {
        Self::parse(tokens, Family::Grpc)
    }

    fn parse(tokens: &str, family: Family) -> (Self, bool) {
        let tokens = tokens.split(',').map(str::trim).filter(|token| !token.is_empty());
        tokens.fold((Self::NONE, true), |(set, valid), token| {
            match Self::TABLE.iter().find(|(f, t, _)| *f == family && *t == token) {
                Some((_, _, condition)) => (set | *condition, valid),
                None => (set, false),
            }
        })
    }
}

impl BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// When and how often a request is tried again.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Conditions from configuration; request headers add to them.
    pub retry_on: RetryOn,
    /// Retries besides the first attempt; default 1.
    pub num_retries: u32,
    /// `per_try_timeout`; none means the global timeout alone.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`; none for no limit.
    pub per_try_idle_timeout: Option<Duration>,
    /// How often a host is picked again when a predicate rejects it; default 1.
    pub host_selection_attempts: u32,
    /// Statuses for [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub retriable_status_codes: Vec<u16>,
    /// Response headers for [`RetryOn::RETRIABLE_HEADERS`]; any one is enough.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Requests that may be retried at all: any one must match, when there are some.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// `retry_back_off.base_interval`; none for the default of 25 ms (runtime `upstream.base_retry_backoff_ms`).
    pub base_interval: Option<Duration>,
    /// `retry_back_off.max_interval`; none for ten times the base.
    pub max_interval: Option<Duration>,
    /// `rate_limited_retry_back_off.reset_headers`, in order.
    pub reset_headers: Vec<ResetHeader>,
    /// Longest wait a reset header may ask for; default 300 s.
    pub reset_max_interval: Duration,
    /// Host predicates in order.
    pub host_predicates: Vec<HostPredicate>,
    /// `refresh_cluster_on_retry`: a retry chooses its cluster anew, where the route has several.
    pub refresh_cluster: bool,
    /// Which priorities a retry avoids.
    pub priority: Option<PreviousPriorities>,
}

/// A response header that tells how long to wait (`ResetHeader`).
#[derive(Debug, Clone)]
pub struct ResetHeader {
    /// Name of the response header.
    pub name: HeaderName,
    /// Whether the value is a Unix time; otherwise it is seconds from now.
    pub unix_timestamp: bool,
}

impl RetryPolicy {
    /// The back-off range: base, and the most it grows to. `default` is the base where the policy has none.
    pub fn back_off(&self, default: Duration) -> (Duration, Duration) {
        let base = self.base_interval.unwrap_or(default);
        (base, self.max_interval.unwrap_or(base * 10))
    }

    /// Whether a request of this head may be retried: no `retriable_request_headers`, or one matches.
    pub fn request_is_retriable(&self, head: &RequestHead) -> bool {
        self.retriable_request_headers.is_empty() || self.retriable_request_headers.iter().any(|m| m.matches(head))
    }

    /// Whether a response header asks for a retry ([`RetryOn::RETRIABLE_HEADERS`]).
    pub fn response_header_matches(&self, response: &ResponseHead) -> bool {
        self.retriable_headers.iter().any(|m| m.matches_response(response))
    }

    /// Builds the policy of a route or virtual host.
    pub fn build(proto: ProtoRetry, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoRetry {
            supported {
                retry_on, num_retries, per_try_timeout, per_try_idle_timeout, retry_priority, retry_host_predicate,
                host_selection_retry_max_attempts, retriable_status_codes, retry_back_off,
                rate_limited_retry_back_off, retriable_headers, retriable_request_headers, retry_options_predicates,
                refresh_cluster_on_retry,
            }
        });
        cx.each("retry_options_predicates", retry_options_predicates, |proto, cx| {
            coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
            // Envoy has none built in either.
            let any = plain(typed_config.unwrap_or_default(), cx)?;
            Err::<(), _>(plugins::unknown(&name, any.type_name(), cx))
        })?;
        let (base_interval, max_interval) = cx
            .opt("retry_back_off", retry_back_off, build_back_off)?
            .unwrap_or((None, None));
        let (reset_headers, reset_max_interval) = match cx.opt(
            "rate_limited_retry_back_off",
            rate_limited_retry_back_off,
            build_rate_limited,
        )? {
            Some((headers, max)) => (headers, max),
            None => (Vec::new(), RESET_MAX_INTERVAL),
        };
        Ok(Self {
            retry_on: RetryOn::parse_http(&retry_on).0 | RetryOn::parse_grpc(&retry_on).0,
            num_retries: num_retries.map_or(1, |n| n.value),
            per_try_timeout: cx
                .opt("per_try_timeout", per_try_timeout, positive)?
                .filter(|d| !d.is_zero()),
            per_try_idle_timeout: cx
                .opt("per_try_idle_timeout", per_try_idle_timeout, positive)?
                .filter(|d| !d.is_zero()),
            host_selection_attempts: u32::try_from(host_selection_retry_max_attempts).unwrap_or(0).max(1),
            retriable_status_codes: retriable_status_codes
                .into_iter()
                .filter_map(|c| u16::try_from(c).ok())
                .collect(),
            retriable_headers: cx.each("retriable_headers", retriable_headers, HeaderMatcher::build)?,
            retriable_request_headers: cx.each(
                "retriable_request_headers",
                retriable_request_headers,
                HeaderMatcher::build,
            )?,
            refresh_cluster: refresh_cluster_on_retry,
            base_interval,
            max_interval,
            reset_headers,
            reset_max_interval,
            host_predicates: cx.each("retry_host_predicate", retry_host_predicate, |p, cx| {
                coverage!(cx, p => proto::RetryHostPredicate { supported { name, config_type } });
                let any = config_type.map(|proto::retry_host_predicate::ConfigType::TypedConfig(any)| any);
                HostPredicate::build(&name, any, cx)
            })?,
            priority: cx.opt(
                "retry_priority",
                retry_priority.filter(|p| !p.name.is_empty()),
                |p, cx| {
                    coverage!(cx, p => proto::RetryPriority { supported { name, config_type } });
                    let any = config_type.map(|proto::retry_priority::ConfigType::TypedConfig(any)| any);
                    PreviousPriorities::build(&name, any, cx)
                },
            )?,
        })
    }
}

const RESET_MAX_INTERVAL: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_millis(1);

fn build_back_off(
    proto: proto::RetryBackOff,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Option<Duration>, Option<Duration>)> {
    coverage!(cx, proto => proto::RetryBackOff { supported { base_interval, max_interval } });
    let base = cx.required("base_interval", base_interval, |d, _| Ok(duration(&d).max(SHORTEST)))?;
    let max = max_interval.map(|d| duration(&d).max(SHORTEST));
    if max.is_some_and(|max| max < base) {
        return Err(cx.error("retry_policy.max_interval must greater than or equal to the base_interval"));
    }
    Ok((Some(base), max))
}

fn build_rate_limited(
    proto: proto::RateLimitedRetryBackOff,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Vec<ResetHeader>, Duration)> {
    coverage!(cx, proto => proto::RateLimitedRetryBackOff { supported { reset_headers, max_interval } });
    let headers = cx.each("reset_headers", reset_headers, |proto, cx| {
        let unix_timestamp = proto.format() == proto::ResetHeaderFormat::UnixTimestamp;
        coverage!(cx, proto => proto::ResetHeader { supported { name, format } });
        let _ = format;
        let name = name
            .parse()
            .map_err(|_| cx.error_at("name", format!("invalid header name '{name}'")))?;
        Ok(ResetHeader { name, unix_timestamp })
    })?;
    let max = max_interval.map_or(RESET_MAX_INTERVAL, |d| duration(&d).max(SHORTEST));
    Ok((headers, max))
}

/// `HedgePolicy`: whether an attempt past its time goes on beside the next one.
pub(super) fn hedge_policy(proto: ProtoHedge, cx: &mut BuildCx<'_>) -> ConfigResult<bool> {
    coverage!(cx, proto => ProtoHedge {
        supported { hedge_on_per_try_timeout }
        ignored {
            initial_requests: "Envoy does not implement it either",
            additional_request_chance: "Envoy does not implement it either",
        }
    });
    Ok(hedge_on_per_try_timeout)
}
