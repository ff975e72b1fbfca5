//! `x-ratelimit-limit`, `-remaining` and `-reset` of the service's answer (draft 03 of the RateLimit header fields).

use http::{HeaderMap, HeaderName, HeaderValue};
use xds_protos::envoy::service::ratelimit::v3::{
    RateLimitResponse,
    rate_limit_response::{DescriptorStatus, RateLimit, rate_limit::Unit},
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Adds the headers of the tightest limit, with the policies of all. None when no status names a limit.
pub(super) fn x_ratelimit(statuses: &[DescriptorStatus], headers: &mut HeaderMap) {
    let limits = || statuses.iter().filter_map(|s| Some((s, s.current_limit.as_ref()?)));
    let Some((tightest, limit)) = limits().min_by_key(|(status, _)| status.limit_remaining) else {
        return;
    };
    let mut text = limit.requests_per_unit.to_string();
    for (_, limit) in limits() {
        let window = window_seconds(limit);
        if window > 0 {
            text.push_str(&format!(", {};w={window}", limit.requests_per_unit));
            if !limit.name.is_empty() {
                text.push_str(&format!(";name=\"{}\"", limit.name));
            }
        }
    }
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.append(LIMIT, text);
    }
    headers.append(REMAINING, HeaderValue::from(tightest.limit_remaining));
    headers.append(RESET, HeaderValue::from(reset_seconds(tightest)));
}

/// Seconds until the tightest limit that was passed allows again.
pub(super) fn retry_after(answer: &RateLimitResponse) -> Option<i64> {
    let limited = answer.statuses.iter().filter(|s| s.duration_until_reset.is_some());
    limited.min_by_key(|s| s.limit_remaining).map(reset_seconds)
}

fn reset_seconds(status: &DescriptorStatus) -> i64 {
    status.duration_until_reset.as_ref().map_or(0, |d| d.seconds)
}

fn window_seconds(limit: &RateLimit) -> u32 {
    const DAY: u32 = 24 * 60 * 60;
    match limit.unit() {
        Unit::Unknown => 0,
        Unit::Second => 1,
        Unit::Minute => 60,
        Unit::Hour => 60 * 60,
        Unit::Day => DAY,
        Unit::Week => 7 * DAY,
        Unit::Month => 30 * DAY,
        Unit::Year => 365 * DAY,
    }
}
