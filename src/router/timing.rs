//! How long a request took, where that is counted, and what `track_cluster_stats` adds.

use std::time::{Duration, Instant};

use http::HeaderMap;

use super::{request::Request, timeout};
use crate::{
    http::stream_info::Progress,
    route::RequestStats,
    stats::{Histogram, Stats},
    upstream::{ClusterStats, Host, SizeStats, TimeoutBudgetStats},
};

/// Where the time of a request is counted.
pub(super) struct Timing {
    pub(super) cluster: Stats<ClusterStats>,
    /// Of the virtual cluster and the route.
    entries: Vec<Stats<RequestStats>>,
    /// Of the canary, the zones and `x-envoy-upstream-alt-stat-name`, where they count.
    extra: Vec<Histogram>,
    internal: bool,
    /// `dynamic_stats` of the router.
    enabled: bool,
    tracked: Option<Box<Tracked>>,
    /// The request's.
    pub(super) limits: timeout::Limits,
}

/// What `track_cluster_stats` needs at the end.
struct Tracked {
    budgets: Option<Stats<TimeoutBudgetStats>>,
    sizes: Option<Stats<SizeStats>>,
    headers: Option<HeaderSizes>,
    ready: Instant,
    limits: timeout::Limits,
}

/// Bytes and number of the headers of a request and of its response.
pub(super) struct HeaderSizes {
    request: (u64, u64),
    response: (u64, u64),
}

impl HeaderSizes {
    pub(super) fn of(request: &HeaderMap, response: &HeaderMap) -> Self {
        let size = |map: &HeaderMap| {
            let bytes = map
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum::<usize>();
            (bytes as u64, map.len() as u64)
        };
        Self {
            request: size(request),
            response: size(response),
        }
    }
}

impl Tracked {
    fn record(&self, start: Instant, now: Instant, progress: &Progress) {
        if let Some(stats) = &self.budgets {
            let stats = stats.local();
            let percent = |limit: Option<Duration>, since: Instant| {
                let limit = limit.filter(|limit| !limit.is_zero());
                limit.map_or(0, |limit| {
                    (now.duration_since(since).as_millis() * 100 / limit.as_millis().max(1)) as u64
                })
            };
            stats
                .upstream_rq_timeout_budget_percent_used
                .record(percent(self.limits.global, start));
            stats
                .upstream_rq_timeout_budget_per_try_percent_used
                .record(percent(self.limits.per_try, self.ready));
        }
        if let (Some(stats), Some(headers)) = (&self.sizes, &self.headers) {
            let stats = stats.local();
            stats.upstream_rq_headers_size.record(headers.request.0);
            stats.upstream_rq_headers_count.record(headers.request.1);
            stats.upstream_rq_body_size.record(progress.upstream_bytes_sent.get());
            stats.upstream_rs_headers_size.record(headers.response.0);
            stats.upstream_rs_headers_count.record(headers.response.1);
            stats
                .upstream_rs_body_size
                .record(progress.upstream_bytes_received.get());
        }
    }
}

impl Timing {
    pub(super) fn new(
        request: &Request<'_>,
        headers: Option<HeaderSizes>,
        ready: Instant,
        host: &Host,
        canary: bool,
    ) -> Self {
        let tracked = request.cluster.info.optional_stats.as_ref().map(|optional| {
            Box::new(Tracked {
                budgets: optional.budgets.clone(),
                sizes: optional.sizes.clone(),
                headers,
                ready,
                limits: request.limits,
            })
        });
        let mut extra = Vec::new();
        if canary {
            extra.push(request.cluster.extra_stats("canary.").time);
        }
        if let Some(alternative) = &request.charging.alternative {
            extra.push(request.cluster.extra_stats(alternative).time);
        }
        extra.extend(request.zone_stats(host).map(|zone| zone.time));
        Self {
            tracked,
            extra,
            limits: request.limits,
            cluster: request.cluster.info.stats.clone(),
            entries: request.entries.iter().flatten().map(|e| e.stats.clone()).collect(),
            internal: request.charging.internal,
            enabled: request.config.dynamic_stats,
        }
    }

    pub(super) fn record(&self, start: Instant, now: Instant, progress: &Progress) {
        if let Some(tracked) = &self.tracked {
            tracked.record(start, now, progress);
        }
        if !self.enabled {
            return;
        }
        let time = u64::try_from(now.duration_since(start).as_millis()).unwrap_or(u64::MAX);
        let stats = self.cluster.local();
        stats.upstream_rq_time.record(time);
        if self.internal {
            stats.internal_upstream_rq_time.record(time);
        } else {
            stats.external_upstream_rq_time.record(time);
        }
        for entry in &self.entries {
            entry.local().upstream_rq_time.record(time);
        }
        for extra in &self.extra {
            extra.record(time);
        }
    }
}
