//! `HTTPFault` -> [`Settings`]: of a filter, and of a route.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use xds_protos::{
    envoy::{
        extensions::filters::{
            common::fault::v3::{
                FaultDelay, FaultRateLimit,
                fault_delay::{FaultDelaySecifier, HeaderDelay},
                fault_rate_limit::{FixedLimit, HeaderLimit, LimitType},
            },
            http::fault::v3::{
                FaultAbort, HttpFault as Proto,
                fault_abort::{ErrorType, HeaderAbort},
            },
        },
        r#type::v3::FractionalPercent as Percentage,
    },
    google::protobuf::Struct,
};

use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent, duration},
    http::RequestHead,
    matching::HeaderMatcher,
    runtime::{Key, Runtime, Snapshot},
};

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const THROUGHPUT: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const THROUGHPUT_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response-percentage");

/// Which faults are injected, and into what.
#[derive(Debug)]
pub(super) struct Settings {
    delay: Option<Fault<Delay>>,
    abort: Option<Fault<AbortKind>>,
    rate_limit: Option<Fault<Rate>>,
    /// Body of an abort.
    pub abort_body: Bytes,
    /// `upstream_cluster`; empty: any.
    pub upstream_cluster: String,
    /// `headers`: all have to match.
    pub headers: Vec<HeaderMatcher>,
    /// `downstream_nodes`; empty: any.
    pub downstream_nodes: Vec<String>,
    max_active_faults: u64,
    keys: Keys,
    /// `!disable_downstream_cluster_stats`
    pub downstream_cluster_stats: bool,
    /// `filter_metadata`
    pub metadata: Option<Struct>,
}

/// A fault, and how often it happens.
#[derive(Debug)]
struct Fault<T> {
    what: T,
    percentage: Percentage,
}

#[derive(Debug)]
enum Delay {
    Fixed(Duration),
    Header,
}

#[derive(Debug)]
enum AbortKind {
    Fixed(Abort),
    Header,
}

/// How a request is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abort {
    Http(StatusCode),
    Grpc(u32),
}

#[derive(Debug)]
enum Rate {
    Fixed(u64),
    Header,
}

impl Settings {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                delay, abort, upstream_cluster, headers, downstream_nodes, max_active_faults, response_rate_limit,
                disable_downstream_cluster_stats, filter_metadata, delay_percent_runtime, abort_percent_runtime,
                delay_duration_runtime, abort_http_status_runtime, abort_grpc_status_runtime,
                max_active_faults_runtime, response_rate_limit_percent_runtime,
            }
        });
        let key = |name: String, default: &str| match name.as_str() {
            "" => cx.server.runtime.key(default),
            name => cx.server.runtime.key(name),
        };
        let keys = Keys {
            delay_percent: key(delay_percent_runtime, "fault.http.delay.fixed_delay_percent"),
            abort_percent: key(abort_percent_runtime, "fault.http.abort.abort_percent"),
            delay_duration: key(delay_duration_runtime, "fault.http.delay.fixed_duration_ms"),
            http_status: key(abort_http_status_runtime, "fault.http.abort.http_status"),
            grpc_status: key(abort_grpc_status_runtime, "fault.http.abort.grpc_status"),
            max_active: key(max_active_faults_runtime, "fault.http.max_active_faults"),
            rate_percent: key(
                response_rate_limit_percent_runtime,
                "fault.http.rate_limit.response_percent",
            ),
        };
        let (abort, abort_body) = cx.opt("abort", abort, Self::abort_of)?.unzip();
        Ok(Self {
            delay: cx.opt("delay", delay, Self::delay_of)?,
            abort,
            rate_limit: cx.opt("response_rate_limit", response_rate_limit, Self::rate_of)?,
            abort_body: abort_body.unwrap_or_default(),
            upstream_cluster,
            headers: cx.each("headers", headers, HeaderMatcher::build)?,
            downstream_nodes,
            keys,
            max_active_faults: max_active_faults.map_or(u64::MAX, |v| v.value.into()),
            downstream_cluster_stats: !disable_downstream_cluster_stats,
            metadata: filter_metadata,
        })
    }

    fn delay_of(proto: FaultDelay, cx: &mut BuildCx<'_>) -> ConfigResult<Fault<Delay>> {
        coverage!(cx, proto => FaultDelay { supported { percentage, fault_delay_secifier } });
        Ok(Fault {
            what: match fault_delay_secifier {
                Some(FaultDelaySecifier::FixedDelay(delay)) => Delay::Fixed(duration(&delay)),
                Some(FaultDelaySecifier::HeaderDelay(HeaderDelay {})) => Delay::Header,
                None => return Err(cx.error("fault_delay_secifier: is required")),
            },
            percentage: percentage.unwrap_or_default(),
        })
    }

    fn abort_of(proto: FaultAbort, cx: &mut BuildCx<'_>) -> ConfigResult<(Fault<AbortKind>, Bytes)> {
        coverage!(cx, proto => FaultAbort { supported { percentage, error_type, response_body } });
        let what = match error_type {
            Some(ErrorType::HttpStatus(status)) => AbortKind::Fixed(Abort::Http(
                status_of(status.into()).ok_or_else(|| cx.error_at("http_status", "not a status"))?,
            )),
            Some(ErrorType::GrpcStatus(status)) => AbortKind::Fixed(Abort::Grpc(status)),
            Some(ErrorType::HeaderAbort(HeaderAbort {})) => AbortKind::Header,
            None => return Err(cx.error("error_type: is required")),
        };
        let body = match response_body.as_str() {
            "" => Bytes::from_static(b"fault filter abort"),
            _ => response_body.into(),
        };
        let percentage = percentage.unwrap_or_default();
        Ok((Fault { what, percentage }, body))
    }

    fn rate_of(proto: FaultRateLimit, cx: &mut BuildCx<'_>) -> ConfigResult<Fault<Rate>> {
        coverage!(cx, proto => FaultRateLimit { supported { percentage, limit_type } });
        Ok(Fault {
            what: match limit_type {
                Some(LimitType::FixedLimit(FixedLimit { limit_kbps })) => Rate::Fixed(limit_kbps),
                Some(LimitType::HeaderLimit(HeaderLimit {})) => Rate::Header,
                None => return Err(cx.error("limit_type: is required")),
            },
            percentage: percentage.unwrap_or_default(),
        })
    }

    /// `max_active_faults`; default without limit.
    pub fn max_active_faults(&self) -> u64 {
        self.keys.max_active.integer(self.max_active_faults)
    }

    /// How long this request is delayed, if it is.
    pub fn delay(&self, head: &RequestHead, caller: &Caller<'_>) -> Option<Duration> {
        let fault = self.delay.as_ref()?;
        let (delay, percentage) = match &fault.what {
            Delay::Fixed(delay) => (Some(*delay), None),
            Delay::Header => (number(head, DELAY).map(Duration::from_millis), Some(DELAY_PERCENTAGE)),
        };
        let share = fault.share(percentage, head);
        if !caller.hit(&self.keys.delay_percent, "delay.fixed_delay_percent", share) {
            return None;
        }
        let millis = u64::try_from(delay?.as_millis()).unwrap_or(u64::MAX);
        let millis = caller.integer(&self.keys.delay_duration, "delay.fixed_duration_ms", millis);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// How this request is aborted, if it is.
    pub fn abort(&self, head: &RequestHead, caller: &Caller<'_>) -> Option<Abort> {
        let fault = self.abort.as_ref()?;
        let (abort, percentage) = match &fault.what {
            AbortKind::Fixed(abort) => (Some(*abort), None),
            AbortKind::Header => {
                let http = number(head, ABORT).and_then(status_of).map(Abort::Http);
                let grpc = || Some(Abort::Grpc(u32::try_from(number(head, ABORT_GRPC)?).ok()?));
                (http.or_else(grpc), Some(ABORT_PERCENTAGE))
            }
        };
        let share = fault.share(percentage, head);
        if !caller.hit(&self.keys.abort_percent, "abort.abort_percent", share) {
            return None;
        }
        match abort? {
            Abort::Http(status) => {
                let code = caller.integer(&self.keys.http_status, "abort.http_status", status.as_u16().into());
                Some(Abort::Http(status_of(code).unwrap_or(status)))
            }
            Abort::Grpc(status) => {
                let code = caller.integer(&self.keys.grpc_status, "abort.grpc_status", status.into());
                Some(Abort::Grpc(u32::try_from(code).unwrap_or(status)))
            }
        }
    }

    /// KiB per second of this request's response, if they are limited.
    pub fn rate(&self, head: &RequestHead) -> Option<u64> {
        let fault = self.rate_limit.as_ref()?;
        let (rate, percentage) = match &fault.what {
            Rate::Fixed(rate) => (*rate, None),
            Rate::Header => (
                number(head, THROUGHPUT).filter(|rate| *rate > 0)?,
                Some(THROUGHPUT_PERCENTAGE),
            ),
        };
        let share = self.keys.rate_percent.share(fault.share(percentage, head));
        share.hit(fastrand::u64(..)).then_some(rate)
    }
}

impl<T> Fault<T> {
    /// How often it happens. A header can only lower the percentage, of the same denominator.
    fn share(&self, header: Option<HeaderName>, head: &RequestHead) -> FractionalPercent {
        let asked = header.and_then(|name| number(head, name));
        let asked = asked.map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX));
        FractionalPercent::of(asked.min(self.percentage.numerator), self.percentage.denominator())
    }
}

/// The runtime keys of a filter.
#[derive(Debug)]
struct Keys {
    delay_percent: Key,
    abort_percent: Key,
    delay_duration: Key,
    http_status: Key,
    grpc_status: Key,
    max_active: Key,
    rate_percent: Key,
}

/// Whose request it is: `x-envoy-downstream-service-cluster` has runtime keys of its own,
/// `fault.http.<cluster>.<name>`, which
/// are read instead of the filter's.
pub(super) struct Caller<'a> {
    /// Empty: unknown.
    pub cluster: &'a str,
    pub runtime: &'a Runtime,
}

impl Caller<'_> {
    fn hit(&self, key: &Key, name: &str, share: FractionalPercent) -> bool {
        let share = match self.of_cluster(name) {
            Some((snapshot, key)) => snapshot.share(&key, share),
            None => key.share(share),
        };
        share.hit(fastrand::u64(..))
    }

    fn integer(&self, key: &Key, name: &str, default: u64) -> u64 {
        match self.of_cluster(name) {
            Some((snapshot, key)) => snapshot.integer(&key, default),
            None => key.integer(default),
        }
    }

    fn of_cluster(&self, name: &str) -> Option<(Arc<Snapshot>, String)> {
        (!self.cluster.is_empty()).then(|| {
            let key = format!("fault.http.{}.{name}", self.cluster);
            (self.runtime.snapshot(), key)
        })
    }
}

/// Faults are injected with any status from 200 to 599.
fn status_of(code: u64) -> Option<StatusCode> {
    let code = u16::try_from(code).ok().filter(|c| (200..600).contains(c))?;
    StatusCode::from_u16(code).ok()
}

fn number(head: &RequestHead, name: HeaderName) -> Option<u64> {
    head.headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
