//! Whether and when an attempt is followed by another.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName};

use super::failure::Failure;
use crate::{
    http::{RequestHead, ResponseHead},
    route::{RetryOn, RetryPolicy},
    runtime::KnownKeys,
    upstream::{ClusterInfo, Guard, ResourcePriority, UpstreamFailure},
};

const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const HEADER_NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What to do after an attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// This attempt counts.
    Done,
    /// Try again after waiting; the guard holds the retry's place in the circuit breaker.
    Again(Duration, Guard),
    /// It would be tried again, but the number of retries is used up: `URX`.
    LimitExceeded,
    /// It would be tried again, but the breaker or budget does not allow it.
    Overflow,
}

/// The retry state of one request.
pub(super) struct Retry<'a> {
    keys: &'a KnownKeys,
    policy: Option<Arc<RetryPolicy>>,
    on: RetryOn,
    codes: Vec<u16>,
    /// Response headers named by `x-envoy-retriable-header-names`.
    names: Vec<HeaderName>,
    left: u32,
    next: Duration,
}

/// `upstream.base_retry_backoff_ms`, 25 ms
fn default_base(keys: &KnownKeys) -> Duration {
    Duration::from_millis(keys.base_retry_backoff_ms.integer(25))
}

/// Whether any header of the request is about retries: one walk instead of four look-ups.
fn steers(head: &RequestHead) -> bool {
    let about = |n: &str| {
        n.starts_with("x-envoy-retr") || n == "x-envoy-max-retries" || n == "x-envoy-hedge-on-per-try-timeout"
    };
    head.headers.keys().any(|n| about(n.as_str()))
}

impl<'a> Retry<'a> {
    /// From the route's policy and the request's headers, which are taken off.
    pub(super) fn new(policy: Option<&Arc<RetryPolicy>>, head: &mut RequestHead, keys: &'a KnownKeys) -> Self {
        let mut on = policy.map_or(RetryOn::NONE, |p| p.retry_on);
        let steered = steers(head);
        if steered && (head.headers.contains_key(&RETRY_ON) || head.headers.contains_key(&RETRY_GRPC_ON)) {
            let take = |head: &mut RequestHead, name| {
                head.headers
                    .remove(name)
                    .and_then(|v| v.to_str().ok().map(str::to_owned))
                    .unwrap_or_default()
            };
            let (http, grpc) = (take(head, &RETRY_ON), take(head, &RETRY_GRPC_ON));
            on = on | RetryOn::parse_http(&http).0 | RetryOn::parse_grpc(&grpc).0;
        }
        let mut codes = policy.map(|p| p.retriable_status_codes.clone()).unwrap_or_default();
        if steered && let Some(more) = head.headers.remove(&STATUS_CODES) {
            codes.extend(
                more.to_str()
                    .unwrap_or_default()
                    .split(',')
                    .filter_map(|c| c.trim().parse::<u16>().ok()),
            );
        }
        let mut names = Vec::new();
        if steered && let Some(more) = head.headers.remove(&HEADER_NAMES) {
            let more = more.to_str().unwrap_or_default().to_owned();
            names.extend(more.split(',').filter_map(|n| n.trim().parse::<HeaderName>().ok()));
        }
        if steered {
            head.headers.remove(&HEDGE);
        }
        let mut left = policy.map_or(1, |p| p.num_retries);
        if steered
            && let Some(asked) = head
                .headers
                .remove(&MAX_RETRIES)
                .and_then(|v| v.to_str().ok().and_then(|v| v.parse().ok()))
        {
            left = asked;
        }
        if policy.is_some_and(|p| !p.request_is_retriable(head)) {
            on = RetryOn::NONE;
        }
        let next = policy.map_or_else(|| default_base(keys), |p| p.back_off(default_base(keys)).0);
        Self {
            keys,
            policy: policy.cloned(),
            on,
            codes,
            names,
            left,
            next,
        }
    }

    /// Whether any retry may come, so that the body has to be kept.
    pub(super) fn possible(&self) -> bool {
        !self.on.is_empty() && self.left > 0
    }

    /// After a response head.
    pub(super) fn on_response(
        &mut self,
        response: &ResponseHead,
        cluster: &ClusterInfo,
        priority: ResourcePriority,
    ) -> Verdict {
        if !self.wants_response(response) {
            return Verdict::Done;
        }
        let asked = self.rate_limited_wait(&response.headers);
        self.again(cluster, priority, asked)
    }

    /// After a failure.
    pub(super) fn on_failure(
        &mut self,
        failure: &Failure,
        cluster: &ClusterInfo,
        priority: ResourcePriority,
    ) -> Verdict {
        if !self.wants_failure(failure) {
            return Verdict::Done;
        }
        self.again(cluster, priority, None)
    }

    fn wants_response(&self, response: &ResponseHead) -> bool {
        let headers = &response.headers;
        let code = response.status.as_u16();
        if self.on.is_empty() {
            return false;
        }
        // A rate-limited response is only tried again when asked for by name.
        if headers.contains_key(&RATE_LIMITED) {
            return self.on.has(RetryOn::ENVOY_RATE_LIMITED);
        }
        let grpc = || {
            headers
                .get(&GRPC_STATUS)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| v.parse::<u8>().ok())
        };
        (self.on.has(RetryOn::ON_5XX) && code >= 500)
            || (self.on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&code))
            || (self.on.has(RetryOn::RETRIABLE_4XX) && code == 409)
            || (self.on.has(RetryOn::RETRIABLE_STATUS_CODES) && self.codes.contains(&code))
            || (self.on.has(RetryOn::RETRIABLE_HEADERS)
                && (self
                    .policy
                    .as_ref()
                    .is_some_and(|p| p.response_header_matches(response))
                    || self.names.iter().any(|n| headers.contains_key(n))))
            || match grpc() {
                Some(1) => self.on.has(RetryOn::GRPC_CANCELLED),
                Some(4) => self.on.has(RetryOn::GRPC_DEADLINE_EXCEEDED),
                Some(8) => self.on.has(RetryOn::GRPC_RESOURCE_EXHAUSTED),
                Some(13) => self.on.has(RetryOn::GRPC_INTERNAL),
                Some(14) => self.on.has(RetryOn::GRPC_UNAVAILABLE),
                _ => false,
            }
    }

    fn wants_failure(&self, failure: &Failure) -> bool {
        let any_reset = self.on.has(RetryOn::ON_5XX | RetryOn::GATEWAY_ERROR | RetryOn::RESET);
        match failure {
            // An open breaker is no reason to add load.
            Failure::Connect(f) | Failure::Upstream(UpstreamFailure::Connect(f)) if f.is_overflow() => false,
            Failure::Upstream(UpstreamFailure::RequestBody(_)) | Failure::Timeout => false,
            Failure::Connect(_) | Failure::Upstream(UpstreamFailure::Connect(_)) => {
                any_reset || self.on.has(RetryOn::CONNECT_FAILURE | RetryOn::RESET_BEFORE_REQUEST)
            }
            Failure::Upstream(UpstreamFailure::RemoteRefusedStream) => {
                any_reset || self.on.has(RetryOn::REFUSED_STREAM)
            }
            Failure::Upstream(_) | Failure::PerTryTimeout | Failure::PerTryIdle | Failure::MaxDuration => any_reset,
        }
    }

    fn again(&mut self, cluster: &ClusterInfo, priority: ResourcePriority, asked: Option<Duration>) -> Verdict {
        let stats = cluster.stats.local();
        if self.left == 0 {
            stats.upstream_rq_retry_limit_exceeded.inc();
            return Verdict::LimitExceeded;
        }
        let Some(guard) = cluster.resources(priority).try_retry() else {
            stats.upstream_rq_retry_overflow.inc();
            return Verdict::Overflow;
        };
        self.left -= 1;
        if !self.keys.use_retry.percent_feature(100, fastrand::u64(..)) {
            return Verdict::Done;
        }
        stats.upstream_rq_retry.inc();
        let wait = match asked {
            Some(wait) => {
                stats.upstream_rq_retry_backoff_ratelimited.inc();
                wait
            }
            None => {
                stats.upstream_rq_retry_backoff_exponential.inc();
                self.back_off()
            }
        };
        Verdict::Again(wait, guard)
    }

    /// Fully jittered and exponential.
    fn back_off(&mut self) -> Duration {
        let max = self.policy.as_ref().map_or_else(
            || default_base(self.keys) * 10,
            |p| p.back_off(default_base(self.keys)).1,
        );
        let range = u64::try_from(self.next.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.next = (self.next * 2).min(max);
        Duration::from_nanos(fastrand::u64(0..range))
    }

    /// The wait that a reset header of the response asks for, within its limit.
    fn rate_limited_wait(&self, headers: &HeaderMap) -> Option<Duration> {
        let policy = self.policy.as_ref()?;
        policy.reset_headers.iter().find_map(|reset| {
            let value: u64 = headers.get(&reset.name)?.to_str().ok()?.trim().parse().ok()?;
            let wait = if reset.unix_timestamp {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
                Duration::from_secs(value).checked_sub(now)?
            } else {
                Duration::from_secs(value)
            };
            (wait <= policy.reset_max_interval).then_some(wait)
        })
    }
}
