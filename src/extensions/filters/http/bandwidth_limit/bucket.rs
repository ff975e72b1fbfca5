//! Bytes that all workers may take from at once: one atomic, no timer.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

/// What sums of seconds lose by rounding must not cost a byte.
const ROUNDING: f64 = 1e-6;

/// A second's worth of bytes, filled continuously. What is kept is the moment at which it would have been empty.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second, and the most it holds.
    rate: f64,
    start: Instant,
    /// Bits of an `f64`: seconds from `start`.
    empty_at: AtomicU64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self {
            rate: bytes_per_second as f64,
            start: now,
            empty_at: AtomicU64::new((-1.0_f64).to_bits()),
        }
    }

    /// Takes as many of `wanted` bytes as there are.
    pub fn take(&self, wanted: usize, now: Instant) -> usize {
        let now = now.saturating_duration_since(self.start).as_secs_f64();
        let mut taken = 0;
        let update = self.empty_at.fetch_update(Relaxed, Relaxed, |bits| {
            let empty_at = f64::from_bits(bits).max(now - 1.0);
            taken = wanted.min(((now - empty_at) * self.rate + ROUNDING) as usize);
            (taken > 0).then(|| (empty_at + taken as f64 / self.rate).to_bits())
        });
        update.map_or(0, |_| taken)
    }
}
