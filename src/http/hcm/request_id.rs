//! `request_id_extension`: UUIDs, and the reason for tracing that one digit of them tells.

use http::{HeaderMap, HeaderName, HeaderValue};
use xds_protos::envoy::{extensions::request_id::uuid::v3::UuidRequestIdConfig, r#type::v3::Percent};

use super::stats::TracingStats;
use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent},
    route::RouteTracing,
    runtime::Key,
};

/// `x-request-id`
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `x-envoy-decorator-operation`
pub(super) const DECORATOR_OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// Where a UUID tells why its request is traced: its version's digit.
const REASON: usize = 14;

/// `envoy.request_id.uuid`
#[derive(Debug, Clone, Copy)]
pub struct RequestIds {
    /// `pack_trace_reason`, default true: decisions are written into the id.
    pack_reason: bool,
    /// `use_request_id_for_trace_sampling`, default true: the id decides what is sampled.
    sampling: bool,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self {
            pack_reason: true,
            sampling: true,
        }
    }
}

impl RequestIds {
    /// Builds the extension.
    pub(crate) fn build(proto: UuidRequestIdConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => UuidRequestIdConfig {
            supported { pack_trace_reason, use_request_id_for_trace_sampling }
        });
        Ok(Self {
            pack_reason: pack_trace_reason.is_none_or(|v| v.value),
            sampling: use_request_id_for_trace_sampling.is_none_or(|v| v.value),
        })
    }

    /// A new id; there is always one.
    pub(crate) fn new_id() -> Option<HeaderValue> {
        let mut buffer = uuid::Uuid::encode_buffer();
        // Random enough to be unique, and an order cheaper than the system's generator.
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut buffer)).ok()
    }

    /// Sets a new id.
    pub(super) fn set(headers: &mut HeaderMap) {
        if let Some(value) = Self::new_id() {
            headers.insert(X_REQUEST_ID, value);
        }
    }

    /// Decides whether the request is traced, and writes the reason into its id.
    pub(super) fn decide(self, headers: &mut HeaderMap, tracing: &Sampling, route: Option<&RouteTracing>) -> Reason {
        if !self.sampling {
            return Reason::Sampling;
        }
        let Some(id) = headers.get(X_REQUEST_ID).cloned() else {
            return Reason::NotTraceable;
        };
        let Some(number) = leading_number(&id) else {
            return Reason::NotTraceable;
        };
        let was = Reason::of(id.as_bytes());
        let mut reason = was;
        if reason == Reason::NotTraceable {
            if headers.contains_key("x-client-trace-id")
                && tracing.client.hit(route.map(|r| r.client_sampling), fastrand::u64(..))
            {
                reason = Reason::ClientForced;
            } else if headers.contains_key("x-envoy-force-trace") {
                reason = Reason::ServiceForced;
            } else if tracing.random.hit(route.map(|r| r.random_sampling), number) {
                reason = Reason::Sampling;
            }
        }
        if reason != Reason::NotTraceable && !tracing.overall.hit(route.map(|r| r.overall_sampling), number) {
            reason = Reason::NotTraceable;
        }
        if reason != was && self.pack_reason {
            let mut bytes = id.as_bytes().to_vec();
            if bytes.len() == 36
                && let Some(digit) = bytes.get_mut(REASON)
            {
                *digit = reason.digit();
                if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                    headers.insert(X_REQUEST_ID, value);
                }
            }
        }
        reason
    }
}

/// The first eight digits: what ids are sampled by.
fn leading_number(id: &HeaderValue) -> Option<u64> {
    let digits = id.to_str().ok()?.get(..8)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Why a request is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is not.
    NotTraceable,
    /// Chosen at random.
    Sampling,
    /// `x-envoy-force-trace`
    ServiceForced,
    /// `x-client-trace-id`
    ClientForced,
}

impl Reason {
    fn of(id: &[u8]) -> Self {
        match id.get(REASON).filter(|_| id.len() == 36) {
            Some(b'9') => Self::Sampling,
            Some(b'a') => Self::ServiceForced,
            Some(b'b') => Self::ClientForced,
            _ => Self::NotTraceable,
        }
    }

    fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }

    /// Counts the decision.
    pub(super) fn count(self, stats: &TracingStats) {
        match self {
            Self::NotTraceable => stats.tracing_not_traceable.inc(),
            Self::Sampling => stats.tracing_random_sampling.inc(),
            Self::ServiceForced => stats.tracing_service_forced.inc(),
            Self::ClientForced => stats.tracing_client_enabled.inc(),
        }
    }
}

/// `tracing`: what share of requests is traced.
#[derive(Debug)]
pub struct Sampling {
    client: Share,
    random: Share,
    overall: Share,
}

/// A share that a route may replace, and the runtime after it.
#[derive(Debug)]
struct Share {
    default: FractionalPercent,
    runtime: Key,
}

impl Share {
    fn new(percent: Option<Percent>, key: &str, cx: &BuildCx<'_>) -> Self {
        let percent = percent.map_or(100.0, |p| p.value).clamp(0.0, 100.0);
        Self {
            // Within 0 and 10000.
            default: FractionalPercent::new((percent * 100.0).round() as u32, 10_000),
            runtime: cx.server.runtime.key(key),
        }
    }

    fn hit(&self, of_route: Option<FractionalPercent>, number: u64) -> bool {
        self.runtime.share(of_route.unwrap_or(self.default)).hit(number)
    }
}

impl Sampling {
    /// Reads the shares of `tracing`.
    pub(super) fn build(
        client: Option<Percent>,
        random: Option<Percent>,
        overall: Option<Percent>,
        cx: &BuildCx<'_>,
    ) -> Self {
        Self {
            client: Share::new(client, "tracing.client_enabled", cx),
            random: Share::new(random, "tracing.random_sampling", cx),
            overall: Share::new(overall, "tracing.global_enabled", cx),
        }
    }
}
