//! What a host keeps for outlier detection.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::{penalty::Penalty, rates::Rate};

/// Counters that workers write, and what control did to the host. A host has one from its first result on.
#[derive(Debug, Default)]
pub struct HostOutlier {
    pub(super) consecutive_5xx: AtomicU32,
    pub(super) gateway: AtomicU32,
    pub(super) local: AtomicU32,
    external_rate: Rate,
    local_rate: Rate,
    ejection: Mutex<Ejection>,
}

/// What control did to a host.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// How often it was ejected.
    pub count: u32,
    /// How long it is ejected.
    pub ejected: Penalty,
    /// How long it counts as degraded.
    pub degraded: Penalty,
}

impl HostOutlier {
    /// Success in percent in the last interval, on this side or on the other; -1 if nothing can be said.
    pub fn success_rate(&self, local: bool) -> f64 {
        self.rate(local).last()
    }

    pub(super) fn rate(&self, local: bool) -> &Rate {
        if local { &self.local_rate } else { &self.external_rate }
    }

    pub(super) fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted before an ejection does not count after it.
    pub(super) fn reset(&self) {
        for counter in [&self.consecutive_5xx, &self.gateway, &self.local] {
            counter.store(0, Relaxed);
        }
    }
}
