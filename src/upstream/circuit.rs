//! Circuit breakers: limits per cluster and priority, shared by all workers as atomics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
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

/// One limit: how many there may be, and how many there are.
#[derive(Debug)]
pub struct Limit {
    max: u64,
    current: AtomicU64,
}

impl Limit {
    /// A limit of `max`.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            current: AtomicU64::new(0),
        }
    }

    /// The limit.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// How many there are now.
    pub fn current(&self) -> u64 {
        self.current.load(Relaxed)
    }

    /// Whether one more is allowed.
    #[inline]
    pub fn can_create(&self) -> bool {
        self.current() < self.max
    }

    /// One more, whether allowed or not.
    #[inline]
    pub(super) fn inc(&self) {
        self.current.fetch_add(1, Relaxed);
    }

    /// One less.
    #[inline]
    pub(super) fn dec(&self) {
        self.current.fetch_sub(1, Relaxed);
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
    /// `max_retries`, 3
    pub retries: Limit,
    /// `max_connection_pools`, no limit
    pub connection_pools: Limit,
}

impl Default for ResourceManager {
    fn default() -> Self {
        Self {
            connections: Limit::new(1024),
            pending_requests: Limit::new(1024),
            requests: Limit::new(1024),
            retries: Limit::new(3),
            connection_pools: Limit::new(u64::MAX),
        }
    }
}

impl ResourceManager {
    /// Takes one retry; none when `max_retries` (or the retry budget) is used up. Held until the retry is over.
    pub fn try_retry(self: &Arc<Self>) -> Option<Guard> {
        if !self.retries.can_create() {
            return None;
        }
        self.retries.inc();
        Some(Guard(self.clone()))
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
