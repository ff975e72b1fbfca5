//! `dns_cache_circuit_breaker`: how many requests may wait for names at a time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::stats::{Gauge, Scope};

/// The limit and what stands against it, shared by all workers.
pub(super) struct Breaker {
    max: u64,
    current: AtomicU64,
    open: Gauge,
    remaining: Gauge,
}

/// One request that waits; dropping it makes room.
pub struct Pending(Arc<Breaker>);

impl Breaker {
    pub fn new(max: u64, scope: &Scope) -> Arc<Self> {
        let breaker = Self {
            max,
            current: AtomicU64::new(0),
            open: scope.gauge("circuit_breakers.rq_pending_open"),
            remaining: scope.gauge("circuit_breakers.rq_pending_remaining"),
        };
        breaker.remaining.add(max);
        Arc::new(breaker)
    }

    /// Takes a place, if there is one.
    pub fn enter(self: &Arc<Self>) -> Option<Pending> {
        let before = self.current.fetch_add(1, Relaxed);
        if before >= self.max {
            self.current.fetch_sub(1, Relaxed);
            return None;
        }
        if before + 1 == self.max {
            self.open.inc();
        }
        self.remaining.sub(1);
        Some(Pending(self.clone()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.0.current.fetch_sub(1, Relaxed) == self.0.max {
            self.0.open.dec();
        }
        self.0.remaining.add(1);
    }
}
