//! What a load report says of clusters: requests of each locality since the report before (LRS).
//!
//! Counters of hosts run on as `/clusters` shows them; a report has the difference to what the last one saw. Only
//! clusters that were asked for are remembered, and only while they are.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use xds_protos::{
    envoy::config::endpoint::v3::{
        ClusterStats, UpstreamEndpointStats, UpstreamLocalityStats, cluster_stats::DroppedRequests,
    },
    google::protobuf::Duration,
};

use super::{Cluster, Host, LocalityHosts, admin};

/// Requests of a cluster that reached no host, of all workers.
#[derive(Debug, Default)]
pub struct DroppedCounts {
    /// By maintenance mode and circuit breakers.
    pub dropped: AtomicU64,
    /// By `drop_overload`.
    pub overload: AtomicU64,
}

/// Counters of a host as a report saw them.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    success: u64,
    error: u64,
    issued: u64,
}

impl Seen {
    fn of(host: &Host) -> Self {
        Self {
            success: host.stats.rq_success.load(Relaxed),
            error: host.stats.rq_error.load(Relaxed),
            issued: host.stats.rq_total.load(Relaxed),
        }
    }
}

/// One cluster that is reported.
struct Tracked {
    since: Instant,
    /// By the hosts' addresses in memory, which are kept alive.
    hosts: HashMap<*const Host, (Arc<Host>, Seen)>,
    dropped: u64,
    overload: u64,
}

impl Tracked {
    fn new(cluster: Option<&Cluster>, now: Instant) -> Self {
        let mut tracked = Self {
            since: now,
            hosts: HashMap::new(),
            dropped: 0,
            overload: 0,
        };
        if let Some(cluster) = cluster {
            for host in cluster.hosts.load().hosts() {
                tracked.hosts.insert(Arc::as_ptr(host), (host.clone(), Seen::of(host)));
            }
            tracked.dropped = cluster.info.drops.dropped.load(Relaxed);
            tracked.overload = cluster.info.drops.overload.load(Relaxed);
        }
        tracked
    }
}

/// The clusters that a load reporting service asked for.
#[derive(Default)]
pub struct LoadReports {
    tracked: HashMap<String, Tracked>,
    by_endpoint: bool,
}

impl LoadReports {
    /// Reports these clusters from now on, and no others: `find` gives one by its name. Those that were reported
    /// before go on.
    pub fn track(
        &mut self,
        names: impl IntoIterator<Item = String>,
        by_endpoint: bool,
        find: impl Fn(&str) -> Option<Arc<Cluster>>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.tracked);
        self.by_endpoint = by_endpoint;
        for name in names {
            let known = before.remove(&name);
            let tracked = known.unwrap_or_else(|| Tracked::new(find(&name).as_deref(), now));
            self.tracked.insert(name, tracked);
        }
    }

    /// What happened since the report before.
    pub fn report(&mut self, find: impl Fn(&str) -> Option<Arc<Cluster>>, now: Instant) -> Vec<ClusterStats> {
        let by_endpoint = self.by_endpoint;
        let all = self.tracked.iter_mut();
        all.filter_map(|(name, tracked)| Some(cluster_stats(name, &*find(name)?, tracked, by_endpoint, now)))
            .collect()
    }
}

fn cluster_stats(
    name: &str,
    cluster: &Cluster,
    tracked: &mut Tracked,
    by_endpoint: bool,
    now: Instant,
) -> ClusterStats {
    let sets = cluster.hosts.load();
    let before = std::mem::take(&mut tracked.hosts);
    let mut localities = Vec::new();
    for (priority, set) in sets.priorities.iter().enumerate() {
        for locality in &set.localities {
            let mut stats = locality_stats(locality, &before, &mut tracked.hosts, by_endpoint);
            stats.priority = u32::try_from(priority).unwrap_or(u32::MAX);
            let anything = stats.total_issued_requests
                + stats.total_requests_in_progress
                + stats.total_successful_requests
                + stats.total_error_requests;
            if anything > 0 {
                localities.push(stats);
            }
        }
    }
    let drops = &cluster.info.drops;
    let since = |last: &mut u64, now: u64| now.saturating_sub(std::mem::replace(last, now));
    let overload = since(&mut tracked.overload, drops.overload.load(Relaxed));
    let category = sets.drop_overload.as_ref().map_or("", |d| &d.category);
    let interval = now.saturating_duration_since(std::mem::replace(&mut tracked.since, now));
    ClusterStats {
        cluster_name: name.to_owned(),
        cluster_service_name: cluster.info.eds_service_name.to_string(),
        upstream_locality_stats: localities,
        total_dropped_requests: since(&mut tracked.dropped, drops.dropped.load(Relaxed)),
        dropped_requests: Vec::from_iter((overload > 0).then(|| DroppedRequests {
            category: category.to_owned(),
            dropped_count: overload,
        })),
        load_report_interval: Some(Duration {
            seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(interval.subsec_micros() * 1000).unwrap_or(0),
        }),
    }
}

fn locality_stats(
    locality: &LocalityHosts,
    before: &HashMap<*const Host, (Arc<Host>, Seen)>,
    after: &mut HashMap<*const Host, (Arc<Host>, Seen)>,
    by_endpoint: bool,
) -> UpstreamLocalityStats {
    let mut out = UpstreamLocalityStats {
        locality: Some(admin::locality(&locality.locality)),
        ..UpstreamLocalityStats::default()
    };
    for host in locality.hosts.iter() {
        let key = Arc::as_ptr(host);
        let last = before.get(&key).map_or_else(Seen::default, |(_, seen)| *seen);
        let now = Seen::of(host);
        after.insert(key, (host.clone(), now));
        let stats = UpstreamEndpointStats {
            address: Some(admin::address(&host.address)),
            total_successful_requests: now.success.saturating_sub(last.success),
            total_error_requests: now.error.saturating_sub(last.error),
            total_issued_requests: now.issued.saturating_sub(last.issued),
            total_requests_in_progress: host.stats.rq_active.load(Relaxed),
            ..UpstreamEndpointStats::default()
        };
        out.total_successful_requests += stats.total_successful_requests;
        out.total_error_requests += stats.total_error_requests;
        out.total_issued_requests += stats.total_issued_requests;
        out.total_requests_in_progress += stats.total_requests_in_progress;
        let anything = stats.total_successful_requests
            + stats.total_error_requests
            + stats.total_issued_requests
            + stats.total_requests_in_progress;
        if by_endpoint && anything > 0 {
            out.upstream_endpoint_stats.push(stats);
        }
    }
    out
}

#[cfg(test)]
mod tests;
