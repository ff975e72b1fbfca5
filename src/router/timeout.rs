//! How long a request may take: the route, overruled by headers (`FilterUtility::finalTimeout`).

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};

use super::{RouterConfig, number};
use crate::{
    http::{
        RequestHead,
        grpc::{GRPC_TIMEOUT, parse_timeout, timeout_value},
        stream_info::Progress,
    },
    net::Deadline,
    route::RouteAction,
    upstream::ClusterInfo,
};

const RQ_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const STREAM_DURATION: HeaderName = HeaderName::from_static("x-envoy-upstream-stream-duration-ms");
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
const ALTERNATIVE: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");

/// The timeouts of one request; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limits {
    /// From the end of the request to the end of the response, all attempts together.
    pub(super) global: Option<Duration>,
    /// From the end of the request, or the connection if that comes later, to the head of an attempt's response.
    pub(super) per_try: Option<Duration>,
    /// How long an attempt may stand still.
    pub(super) per_try_idle: Option<Duration>,
    /// From the connection to the end of an attempt.
    pub(super) max_duration: Option<Duration>,
    /// A timeout is answered 204.
    pub(super) alternative: bool,
    /// An attempt past `per_try` goes on beside the next one.
    pub(super) hedge: bool,
    /// `grpc-timeout` tells the upstream what is left.
    grpc_header: bool,
}

/// Decides the timeouts and takes the headers that steer them off.
pub(super) fn limits(
    head: &mut RequestHead,
    action: &RouteAction,
    cluster: &ClusterInfo,
    config: &RouterConfig,
) -> Limits {
    let timeouts = &action.timeouts;
    let mut limits = Limits {
        max_duration: cluster.http.max_stream_duration,
        hedge: action.hedge,
        ..Limits::default()
    };
    // With `max_stream_duration` the connection manager keeps the time, by `grpc-timeout` too.
    let mut global = Duration::ZERO;
    if timeouts.max_stream_duration.is_none() {
        global = timeouts.global;
        if let Some(max) = timeouts.max_grpc.filter(|_| head.is_grpc()) {
            limits.grpc_header = true;
            global = head
                .headers
                .get(&GRPC_TIMEOUT)
                .and_then(parse_timeout)
                .unwrap_or_default();
            if let Some(offset) = timeouts.grpc_offset.filter(|offset| *offset < global) {
                global -= offset;
            }
            if !max.is_zero() && (global.is_zero() || global > max) {
                global = max;
            }
        }
    }
    let policy = action.retry_policy.as_ref();
    let mut per_try = policy.and_then(|p| p.per_try_timeout).unwrap_or_default();
    limits.per_try_idle = policy.and_then(|p| p.per_try_idle_timeout);
    if steers(head) {
        let expected = number::joined(&head.headers, &EXPECTED).filter(|_| config.respect_expected_rq_timeout);
        match expected {
            // The caller's proxy has the deadline already: it goes on as it came.
            Some(expected) => global = millis(&expected).unwrap_or(global),
            None => global = take_millis(head, &RQ_TIMEOUT).unwrap_or(global),
        }
        per_try = take_millis(head, &PER_TRY_TIMEOUT).unwrap_or(per_try);
        limits.max_duration = take_millis(head, &STREAM_DURATION).map_or(limits.max_duration, non_zero);
        limits.alternative = head.headers.remove(&ALTERNATIVE).is_some();
        if let Some(hedge) = number::take(&mut head.headers, &HEDGE) {
            limits.hedge = hedge == "true";
        }
    }
    if !global.is_zero() && per_try >= global {
        per_try = Duration::ZERO;
    }
    limits.global = non_zero(global);
    limits.per_try = non_zero(per_try);
    limits
}

impl Limits {
    /// Tells the upstream how long it has, before each attempt.
    pub(super) fn set_headers(&self, head: &mut RequestHead, first: bool, progress: &Progress, config: &RouterConfig) {
        // All attempts of a hedged request have the whole time.
        let Some(mut expected) = self.per_try.filter(|_| !self.hedge).or(self.global) else {
            return;
        };
        if let Some(global) = self.global {
            let complete = progress.last_downstream_rx.get();
            let complete = complete.filter(|_| !first && progress.request_complete.get());
            let elapsed = complete.map_or(Duration::ZERO, |at| at.elapsed());
            // Nothing left would mean no limit.
            let left = global.saturating_sub(elapsed).max(Duration::from_millis(1));
            expected = expected.min(round_up(left));
        }
        if !config.suppress_envoy_headers {
            let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
            head.headers.insert(EXPECTED, HeaderValue::from(millis));
        }
        if self.grpc_header {
            head.headers.insert(GRPC_TIMEOUT, timeout_value(expected));
        }
    }
}

/// Whole milliseconds, as Envoy counts time: what is left of one counts.
fn round_up(d: Duration) -> Duration {
    let millis = d.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Whether any header of the request steers the router: one walk instead of five look-ups.
fn steers(head: &RequestHead) -> bool {
    head.headers.keys().any(|n| n.as_str().starts_with("x-envoy-"))
}

fn non_zero(d: Duration) -> Option<Duration> {
    (!d.is_zero()).then_some(d)
}

fn millis(text: &str) -> Option<Duration> {
    number::unsigned(text).map(Duration::from_millis)
}

fn take_millis(head: &mut RequestHead, name: &HeaderName) -> Option<Duration> {
    millis(&number::take(&mut head.headers, name)?)
}

/// Waits for a limit that starts when the request is complete, and not before `from`.
pub(super) async fn expire(limit: Option<Duration>, from: Option<Instant>, progress: Rc<Progress>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let mut due = due(limit, &progress);
        if let Some(from) = from {
            due = due.max(from + limit);
        }
        if due <= Instant::now() && progress.request_complete.get() {
            return;
        }
        Deadline::at(due).await;
    }
}

/// When a limit from the end of the request runs out, as things are now.
pub(super) fn due(limit: Duration, progress: &Progress) -> Instant {
    let complete = progress
        .request_complete
        .get()
        .then(|| progress.last_downstream_rx.get())
        .flatten();
    complete.unwrap_or_else(Instant::now) + limit
}
