//! How long a request may take: the route, overruled by headers (`FilterUtility::finalTimeout`).

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};

use super::RouterConfig;
use crate::{
    http::{RequestHead, stream_info::Progress},
    net::Deadline,
    route::RouteAction,
};

const RQ_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The timeouts of one request; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) global: Option<Duration>,
    pub(super) per_try: Option<Duration>,
}

/// Decides the timeouts, takes the headers that steer them off, and sets the one that tells the upstream.
pub(super) fn limits(head: &mut RequestHead, action: &RouteAction, config: &RouterConfig) -> Limits {
    let grpc = head.is_grpc();
    let mut global = action.timeouts.global;
    if grpc && let Some(max) = action.timeouts.max_grpc {
        let asked = head
            .headers
            .get(&GRPC_TIMEOUT)
            .and_then(grpc_timeout)
            .unwrap_or(Duration::ZERO);
        let asked = match action.timeouts.grpc_offset {
            Some(offset) if asked > offset => asked - offset,
            _ => asked,
        };
        global = if max.is_zero() || (!asked.is_zero() && asked < max) {
            asked
        } else {
            max
        };
    }
    if grpc
        && let Some(duration) = &action.timeouts.max_stream_duration
        && let Some(max) = duration.grpc_max
        && let Some(asked) = head.headers.get(&GRPC_TIMEOUT).and_then(grpc_timeout)
    {
        let asked = asked.saturating_sub(duration.grpc_offset.unwrap_or_default());
        global = if max.is_zero() { asked } else { asked.min(max) };
    }
    let steered = steers(head);
    if steered
        && config.respect_expected_rq_timeout
        && let Some(expected) = take_millis(head, &EXPECTED)
    {
        global = expected;
    }
    if steered && let Some(asked) = take_millis(head, &RQ_TIMEOUT) {
        global = asked;
    }
    let mut per_try = action
        .retry_policy
        .as_ref()
        .and_then(|p| p.per_try_timeout)
        .unwrap_or_default();
    if steered && let Some(asked) = take_millis(head, &PER_TRY_TIMEOUT) {
        per_try = asked;
    }
    if !global.is_zero() && per_try >= global {
        per_try = Duration::ZERO;
    }
    let expected = if per_try.is_zero() { global } else { per_try };
    if !expected.is_zero() && !config.suppress_envoy_headers {
        head.headers.insert(
            EXPECTED,
            HeaderValue::from(u64::try_from(expected.as_millis()).unwrap_or(u64::MAX)),
        );
    }
    Limits {
        global: non_zero(global),
        per_try: non_zero(per_try),
    }
}

/// Whether any header of the request steers the router: one walk instead of three look-ups.
fn steers(head: &RequestHead) -> bool {
    head.headers.keys().any(|n| n.as_str().starts_with("x-envoy-"))
}

fn non_zero(d: Duration) -> Option<Duration> {
    (!d.is_zero()).then_some(d)
}

fn take_millis(head: &mut RequestHead, name: &HeaderName) -> Option<Duration> {
    let value = head.headers.remove(name)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// `grpc-timeout`: up to eight digits and a unit.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Waits for the route's timeout, which starts when the request is complete.
pub(super) async fn expire(limit: Option<Duration>, progress: Rc<Progress>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let due = due(limit, &progress);
        if due <= Instant::now() && progress.request_complete.get() {
            return;
        }
        Deadline::at(due).await;
    }
}

/// When the timeout runs out, as things are now.
pub(super) fn due(limit: Duration, progress: &Progress) -> Instant {
    let complete = progress
        .request_complete
        .get()
        .then(|| progress.last_downstream_rx.get())
        .flatten();
    complete.unwrap_or_else(Instant::now) + limit
}
