//! What the upstream last said about its health, kept for a while (`cache_time`).

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::StatusCode;

/// One answer, shared by all workers. It is forgotten at fixed moments, `cache_time` apart, as in Envoy: an answer
/// lives at most that long.
#[derive(Debug)]
pub(super) struct Cache {
    start: Instant,
    period: Duration,
    /// Period of the answer above bit 17, degraded in bit 16, status below. Period 0 of the cell is no answer.
    answer: AtomicU64,
}

impl Cache {
    /// Without an answer. `period` is not zero.
    pub fn new(period: Duration, now: Instant) -> Self {
        Self {
            start: now,
            period,
            answer: AtomicU64::new(0),
        }
    }

    /// The status and whether it was degraded, if an answer came in this period.
    pub fn get(&self, now: Instant) -> Option<(StatusCode, bool)> {
        let answer = self.answer.load(Relaxed);
        if answer >> 17 != self.period_at(now) {
            return None;
        }
        let status = StatusCode::from_u16((answer & 0xffff) as u16).ok()?;
        Some((status, answer & (1 << 16) != 0))
    }

    /// Keeps an answer to the end of this period.
    pub fn set(&self, status: StatusCode, degraded: bool, now: Instant) {
        let answer = self.period_at(now) << 17 | u64::from(degraded) << 16 | u64::from(status.as_u16());
        self.answer.store(answer, Relaxed);
    }

    /// Counts from 1.
    fn period_at(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos() / self.period.as_nanos().max(1);
        u64::try_from(passed).unwrap_or(u64::MAX >> 18) + 1
    }
}
