//! `envoy.resource_monitors.global_downstream_max_connections`: a limit that each connection claims a part of.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::stats::Counter;

/// The limit of downstream connections of the process.
pub struct ConnectionLimit {
    max: u64,
    open: AtomicU64,
    failed: OnceLock<Counter>,
}

impl ConnectionLimit {
    /// `max_active_downstream_connections`
    pub fn new(max: u64) -> Self {
        Self {
            max,
            open: AtomicU64::new(0),
            failed: OnceLock::new(),
        }
    }

    /// Where failed claims count: `failed_updates`, as in Envoy.
    pub(super) fn count_failures(&self, failed: &Counter) {
        let _ = self.failed.set(failed.clone());
    }

    /// Claims a connection, if there is one left.
    pub fn claim(&self) -> bool {
        let claim = |open| (open < self.max).then_some(open + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let claimed = self.open.fetch_update(set, fetch, claim).is_ok();
        if !claimed && let Some(failed) = self.failed.get() {
            failed.inc();
        }
        claimed
    }

    /// Gives one back.
    pub fn release(&self) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.open.fetch_update(set, fetch, |open| open.checked_sub(1));
    }

    /// The share that is claimed.
    pub fn pressure(&self) -> f64 {
        self.open.load(Ordering::Relaxed) as f64 / self.max as f64
    }
}
