//! Circuit breakers: limits per cluster and priority, shared by all workers as atomics.

mod budget;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Notify;

use self::budget::Budget;
pub use self::budget::RetryBudget;
use super::ClusterStats;
use crate::{
    runtime::Snapshot,
    stats::{Gauge, GaugeCell, Scope, Stats},
};

/// `core.v3.RoutingPriority`: which set of limits a request counts against; pools are apart too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ResourcePriority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// The configured limits of one priority.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// `max_connections`, 1024
    pub connections: u64,
    /// `max_pending_requests`, 1024
    pub pending_requests: u64,
    /// `max_requests`, 1024
    pub requests: u64,
    /// `max_retries`, 3
    pub retries: u64,
    /// `max_connection_pools`, no limit
    pub connection_pools: u64,
    /// `retry_budget`: replaces `retries`.
    pub retry_budget: Option<RetryBudget>,
    /// `per_host_thresholds.max_connections`, no limit
    pub connections_per_host: u64,
    /// `track_remaining`: whether the `remaining_*` gauges are kept.
    pub track_remaining: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending_requests: 1024,
            requests: 1024,
            retries: 3,
            connection_pools: u64::MAX,
            retry_budget: None,
            connections_per_host: u64::MAX,
            track_remaining: false,
        }
    }
}

type OpenGauge = fn(&ClusterStats) -> &GaugeCell;

/// One limit: how many there may be, and how many there are.
pub struct Limit {
    configured: u64,
    /// The configured one, unless a runtime key says otherwise.
    max: AtomicU64,
    current: AtomicU64,
    stats: Stats<ClusterStats>,
    open: OpenGauge,
    /// One was made although the limit is 0.
    passed: AtomicBool,
    remaining: Option<Gauge>,
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.current(), self.max())
    }
}

impl Limit {
    fn new(max: u64, stats: &Stats<ClusterStats>, open: OpenGauge, remaining: Option<Gauge>) -> Self {
        match &remaining {
            // No limit: the largest of numbers, which is not to be taken for one below zero.
            Some(gauge) if max > i64::MAX as u64 => gauge.set(max),
            Some(gauge) => gauge.add(max),
            None => {}
        }
        Self {
            configured: max,
            max: AtomicU64::new(max),
            current: AtomicU64::new(0),
            stats: stats.clone(),
            open,
            passed: AtomicBool::new(false),
            remaining,
        }
    }

    /// The limit.
    #[inline]
    pub fn max(&self) -> u64 {
        self.max.load(Relaxed)
    }

    /// Changes the limit; none puts the configured one back. The gauges follow.
    fn set_max(&self, max: Option<u64>) {
        let max = max.unwrap_or(self.configured);
        let before = self.max.swap(max, Relaxed);
        let current = self.current();
        let open = |max: u64| max > 0 && current >= max;
        if max > 0 && self.passed.swap(false, Relaxed) {
            (self.open)(self.stats.local()).dec();
        }
        match (open(before), open(max)) {
            (false, true) => (self.open)(self.stats.local()).inc(),
            (true, false) => (self.open)(self.stats.local()).dec(),
            _ => {}
        }
        if let Some(gauge) = &self.remaining {
            gauge.add(max.saturating_sub(current));
            gauge.sub(before.saturating_sub(current));
        }
    }

    /// How many there are now.
    #[inline]
    pub fn current(&self) -> u64 {
        self.current.load(Relaxed)
    }

    /// Whether one more is allowed.
    #[inline]
    pub fn can_create(&self) -> bool {
        self.current() < self.max()
    }

    /// One more, whether allowed or not. The gauge moves with the one that reaches the limit, so that it is right
    /// whichever worker that happens on.
    #[inline]
    pub(super) fn inc(&self) {
        let now = self.current.fetch_add(1, Relaxed) + 1;
        let max = self.max();
        if now == 1 {
            // Seen as used from now on, as where Envoy writes it with every change.
            (self.open)(self.stats.local()).add(0);
        }
        // A limit of 0 that is passed nonetheless (the one connection that is always allowed) stays open from then on.
        if now == max || (max == 0 && !self.passed.swap(true, Relaxed)) {
            (self.open)(self.stats.local()).inc();
        }
        if now <= max
            && let Some(gauge) = &self.remaining
        {
            gauge.dec();
        }
    }

    /// One less.
    #[inline]
    pub(super) fn dec(&self) {
        let before = self.current.fetch_sub(1, Relaxed);
        let max = self.max();
        if before == max {
            (self.open)(self.stats.local()).dec();
        }
        if before <= max
            && let Some(gauge) = &self.remaining
        {
            gauge.inc();
        }
    }
}

impl Drop for Limit {
    // The statistics outlive a cluster that is replaced by one of its name.
    fn drop(&mut self) {
        let (current, max) = (self.current(), self.max());
        if max > 0 && current >= max || self.passed.load(Relaxed) {
            (self.open)(self.stats.local()).dec();
        }
        if let Some(gauge) = &self.remaining {
            gauge.sub(max.saturating_sub(current));
        }
    }
}

/// The circuit breakers of a cluster. Those of a priority are made when the first connection or request comes, unless
/// they show themselves before (`track_remaining`): most of ten thousand clusters are idle.
pub struct CircuitBreakers {
    limits: Arc<[Limits; 2]>,
    made: [OnceLock<Arc<ResourceManager>>; 2],
}

impl CircuitBreakers {
    /// Breakers with these limits of the default and of the high priority.
    pub fn new(limits: Arc<[Limits; 2]>, stats: &Stats<ClusterStats>, scope: &Scope) -> Self {
        let breakers = Self {
            limits,
            made: Default::default(),
        };
        for priority in [ResourcePriority::Default, ResourcePriority::High] {
            if breakers.limits[priority as usize].track_remaining {
                breakers.of(priority, stats, scope);
            }
        }
        breakers
    }

    /// Those of a priority. `stats` and `scope` are the cluster's.
    #[inline]
    pub fn of(&self, priority: ResourcePriority, stats: &Stats<ClusterStats>, scope: &Scope) -> &Arc<ResourceManager> {
        self.made[priority as usize].get_or_init(|| {
            let limits = self.limits[priority as usize].clone();
            Arc::new(ResourceManager::new(limits, priority, stats, scope))
        })
    }
}

/// The limits of one priority (`CircuitBreakers.Thresholds`).
#[derive(Debug)]
pub struct ResourceManager {
    /// `max_connections`, 1024
    pub connections: Limit,
    /// `max_pending_requests`, 1024
    pub pending_requests: Limit,
    /// `max_requests`, 1024
    pub requests: Limit,
    /// `max_retries`, 3; what counts is [`Self::try_retry`], which knows the retry budget.
    pub retries: Limit,
    /// `max_connection_pools`, no limit
    pub connection_pools: Limit,
    /// `per_host_thresholds.max_connections`, no limit
    pub connections_per_host: u64,
    budget: Budget,
    /// Told whenever a connection ends.
    freed: Notify,
}

impl ResourceManager {
    /// Limits that count into a cluster's statistics.
    pub fn new(limits: Limits, priority: ResourcePriority, stats: &Stats<ClusterStats>, scope: &Scope) -> Self {
        let high = priority == ResourcePriority::High;
        let limit = |max: u64, name: &str, default_gauge: OpenGauge, high_gauge: OpenGauge| {
            let prefix = if high { "high" } else { "default" };
            let remaining = limits
                .track_remaining
                .then(|| scope.gauge(&format!("circuit_breakers.{prefix}.remaining_{name}")))
                // What is left of a budget depends on more than retries: its gauge stays at nothing.
                .filter(|_| name != "retries" || limits.retry_budget.is_none());
            Limit::new(max, stats, if high { high_gauge } else { default_gauge }, remaining)
        };
        Self {
            connections: limit(limits.connections, "cx", |s| &s.default_cx_open, |s| &s.high_cx_open),
            pending_requests: limit(
                limits.pending_requests,
                "pending",
                |s| &s.default_rq_pending_open,
                |s| &s.high_rq_pending_open,
            ),
            requests: limit(limits.requests, "rq", |s| &s.default_rq_open, |s| &s.high_rq_open),
            retries: limit(
                limits.retries,
                "retries",
                |s| &s.default_rq_retry_open,
                |s| &s.high_rq_retry_open,
            ),
            connection_pools: limit(
                limits.connection_pools,
                "cx_pools",
                |s| &s.default_cx_pool_open,
                |s| &s.high_cx_pool_open,
            ),
            connections_per_host: limits.connections_per_host,
            budget: Budget::new(limits.retry_budget),
            freed: Notify::new(),
        }
    }

    /// Takes the limits of the runtime: `circuit_breakers.<cluster>.<priority>.max_requests` and its like.
    pub(super) fn apply_runtime(&self, cluster: &str, priority: ResourcePriority, snapshot: &Snapshot) {
        let priority = match priority {
            ResourcePriority::Default => "default",
            ResourcePriority::High => "high",
        };
        let prefix = format!("circuit_breakers.{cluster}.{priority}");
        self.budget.apply_runtime(&prefix, snapshot);
        for (limit, name) in [
            (&self.connections, "max_connections"),
            (&self.pending_requests, "max_pending_requests"),
            (&self.requests, "max_requests"),
            (&self.retries, "max_retries"),
            (&self.connection_pools, "max_connection_pools"),
        ] {
            let key = format!("{prefix}.{name}");
            limit.set_max(snapshot.get(&key).and_then(|entry| entry.integer));
        }
    }

    /// How many retries may be in flight now.
    pub fn max_retries(&self) -> u64 {
        let active = self.requests.current() + self.pending_requests.current();
        self.budget.max(active).unwrap_or_else(|| self.retries.max())
    }

    /// A request starts on a connection: until [`Self::request_ends`] it counts.
    #[inline]
    pub(super) fn request_starts(&self) {
        self.requests.inc();
        self.budget.started();
    }

    /// It is over.
    #[inline]
    pub(super) fn request_ends(&self) {
        self.requests.dec();
    }

    /// A connection is over: who waits for one may look again.
    pub(super) fn connection_ends(&self) {
        self.connections.dec();
        self.freed.notify_waiters();
    }

    /// Waits until a connection is over.
    pub(super) fn connection_freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// Counts something that is like a connection and in no pool, allowed or not: a UDP session. Held until it ends.
    pub fn count_connection(self: &Arc<Self>) -> CountedConnection {
        self.connections.inc();
        CountedConnection(self.clone())
    }

    /// Takes one retry; none when `max_retries` (or the retry budget) is used up. Held until the retry is over.
    pub fn try_retry(self: &Arc<Self>) -> Option<Guard> {
        if self.retries.current() >= self.max_retries() {
            return None;
        }
        self.retries.inc();
        Some(Guard(self.clone()))
    }
}

/// Something that counts as a connection.
#[derive(Debug)]
pub struct CountedConnection(Arc<ResourceManager>);

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connection_ends();
    }
}

/// A retry in flight.
#[derive(Debug)]
pub struct Guard(Arc<ResourceManager>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.retries.dec();
    }
}

#[cfg(test)]
mod tests;
