//! Whether and when an attempt is followed by another.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName};

use super::{failure::Failure, number};
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
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What to do after an attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// This attempt counts: it is nothing to be tried again.
    Done,
    /// This attempt counts whatever came of it.
    Final,
    /// Try again.
    Again(Again),
    /// It would be tried again, but the number of retries is used up: `URX`.
    LimitExceeded,
    /// It would be tried again, but the breaker or budget does not allow it.
    Overflow,
}

/// A retry to come.
#[derive(Debug)]
pub(super) struct Again {
    /// How long to wait before.
    pub(super) wait: Duration,
    /// The upstream asked for this wait.
    pub(super) asked: bool,
    /// Holds the retry's place in the circuit breaker.
    pub(super) guard: Guard,
}

/// The retry state of one request.
pub(super) struct Retry<'a> {
    keys: &'a KnownKeys,
    policy: Option<Arc<RetryPolicy>>,
    on: RetryOn,
    codes: Vec<u16>,
    /// Response headers named by `x-envoy-retriable-header-names`.
    names: Vec<HeaderName>,
    /// `:status` is among them, which every response has.
    any_response: bool,
    left: u32,
    next: Duration,
}

/// `upstream.base_retry_backoff_ms`, 25 ms
fn default_base(keys: &KnownKeys) -> Duration {
    Duration::from_millis(keys.base_retry_backoff_ms.integer(25))
}

/// Whether any header of the request is about retries: one walk instead of four look-ups.
fn steers(head: &RequestHead) -> bool {
    let about = |n: &str| n.starts_with("x-envoy-retr") || n == "x-envoy-max-retries";
    head.headers.keys().any(|n| about(n.as_str()))
}

impl<'a> Retry<'a> {
    /// From the route's policy and the request's headers, which are taken off.
    pub(super) fn new(policy: Option<&Arc<RetryPolicy>>, head: &mut RequestHead, keys: &'a KnownKeys) -> Self {
        let mut on = policy.map_or(RetryOn::NONE, |p| p.retry_on);
        let steered = steers(head);
        if steered && (head.headers.contains_key(&RETRY_ON) || head.headers.contains_key(&RETRY_GRPC_ON)) {
            let take = |head: &mut RequestHead, name| number::take(&mut head.headers, name).unwrap_or_default();
            let (http, grpc) = (take(head, &RETRY_ON), take(head, &RETRY_GRPC_ON));
            on = on | RetryOn::parse_http(&http).0 | RetryOn::parse_grpc(&grpc).0;
        }
        let mut codes = policy.map(|p| p.retriable_status_codes.clone()).unwrap_or_default();
        if steered && let Some(more) = number::take(&mut head.headers, &STATUS_CODES) {
            let more = more.split(',').filter_map(number::unsigned);
            codes.extend(more.filter_map(|code| u16::try_from(code).ok()));
        }
        let (mut names, mut any_response) = (Vec::new(), false);
        if steered && let Some(more) = number::take(&mut head.headers, &HEADER_NAMES) {
            let more = more.split(',').map(str::trim);
            names.extend(more.clone().filter_map(|n| n.parse::<HeaderName>().ok()));
            any_response = more.into_iter().any(|n| n == ":status");
        }
        let mut left = policy.map_or(1, |p| p.num_retries);
        if steered
            && let Some(asked) = number::take(&mut head.headers, &MAX_RETRIES)
            && let Some(asked) = number::unsigned(&asked)
        {
            // As Envoy, which cuts off what does not fit.
            left = asked as u32;
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
            any_response,
            left,
            next,
        }
    }

    /// Whether there is anything that would be tried again.
    pub(super) fn enabled(&self) -> bool {
        !self.on.is_empty()
    }

    /// `refresh_cluster_on_retry`
    pub(super) fn refreshes_cluster(&self) -> bool {
        self.policy.as_ref().is_some_and(|p| p.refresh_cluster)
    }

    /// Whether any retry may come, so that the body has to be kept.
    pub(super) fn possible(&self) -> bool {
        self.enabled() && self.left > 0
    }

    /// After an attempt's time, which goes on beside the next one: that needs no condition.
    pub(super) fn on_late(&mut self, cluster: &ClusterInfo, priority: ResourcePriority) -> Verdict {
        self.again(cluster, priority, None)
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

    /// Whether such a response would be tried again.
    pub(super) fn wants_response(&self, response: &ResponseHead) -> bool {
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
                .and_then(number::unsigned)
        };
        (self.on.has(RetryOn::ON_5XX) && code >= 500)
            || (self.on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&code))
            || (self.on.has(RetryOn::RETRIABLE_4XX) && code == 409)
            || (self.on.has(RetryOn::RETRIABLE_STATUS_CODES) && self.codes.contains(&code))
            || (self.on.has(RetryOn::RETRIABLE_HEADERS)
                && (self.any_response
                    || self
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

    /// Whether such a failure would be tried again.
    pub(super) fn wants_failure(&self, failure: &Failure) -> bool {
        let any_reset = self.on.has(RetryOn::ON_5XX | RetryOn::GATEWAY_ERROR | RetryOn::RESET);
        match failure {
            // An open breaker is no reason to add load.
            Failure::Connect(f) | Failure::Upstream(UpstreamFailure::Connect(f)) if f.is_overflow() => false,
            Failure::Upstream(UpstreamFailure::RequestBody(_)) | Failure::Timeout | Failure::NoPool => false,
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
            return Verdict::Final;
        }
        Verdict::Again(Again {
            // Not all at the same moment.
            wait: asked.map_or_else(|| self.back_off(), |wait| wait + wait.mul_f64(fastrand::f64() / 2.0)),
            asked: asked.is_some(),
            guard,
        })
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
        let asked = policy.reset_headers.iter().find_map(|reset| {
            let value = number::unsigned(headers.get(&reset.name)?.to_str().ok()?)?;
            let wait = if reset.unix_timestamp {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
                Duration::from_secs(value).checked_sub(now)?
            } else {
                Duration::from_secs(value)
            };
            (wait <= policy.reset_max_interval).then_some(wait)
        });
        // What asks for no time at all asks for nothing.
        asked.filter(|wait| wait.as_millis() > 1)
    }
}
