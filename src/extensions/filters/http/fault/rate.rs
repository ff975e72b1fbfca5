//! The rate of a response body.

use std::time::Duration;

use tokio::time::Instant;

use crate::extensions::filters::common::paced::Pace;

/// Bytes go in slices of this length, as in Envoy.
const SLICE: Duration = Duration::from_millis(50);

/// Slices that may be saved up: a second's.
const MOST_SLICES: f64 = 20.0;

/// What may go now.
#[derive(Debug)]
pub(super) struct Slices {
    /// Bytes that one slice may carry.
    length: f64,
    /// Slices that may go.
    saved: f64,
    /// When `saved` was right; none before the first byte, which has one slice.
    since: Option<Instant>,
}

impl Slices {
    /// For so many KiB per second.
    pub fn new(kib_per_second: u64) -> Self {
        Self {
            length: (kib_per_second as f64 * 1024.0 * SLICE.as_secs_f64()).max(1.0),
            saved: 1.0,
            since: None,
        }
    }

    /// How many of `wanted` bytes may go now; or how long to wait for the next slice.
    pub fn take(&mut self, wanted: usize, now: Instant) -> Result<usize, Duration> {
        let passed = self.since.map_or(0.0, |since| {
            now.duration_since(since).as_secs_f64() / SLICE.as_secs_f64()
        });
        self.since = Some(now);
        self.saved = (self.saved + passed).min(MOST_SLICES);
        // Whole slices only: a byte here and there would cost more than it carries.
        if self.saved < 1.0 {
            return Err(SLICE.mul_f64(1.0 - self.saved));
        }
        let len = wanted.min((self.saved.floor() * self.length) as usize);
        self.saved -= (len as f64 / self.length).ceil();
        Ok(len)
    }
}

impl Pace for Slices {
    fn allow(&mut self, wanted: usize) -> (usize, Option<Duration>) {
        match self.take(wanted, Instant::now()) {
            Ok(len) => (len, None),
            Err(wait) => (0, Some(wait)),
        }
    }
}
