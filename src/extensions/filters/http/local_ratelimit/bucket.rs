//! A token bucket that all workers may use at once: one atomic, no timer.
//!
//! What is kept is the moment at which the bucket would have been empty; how full it is follows from the time that
//! has passed since. So it fills continuously at `tokens_per_fill / fill_interval`, as Envoy's does.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// What sums of seconds lose by rounding must not cost a token of a full bucket.
const ROUNDING: f64 = 1e-6;

/// A bucket of tokens.
#[derive(Debug)]
pub struct Bucket {
    max: f64,
    /// Tokens per second.
    rate: f64,
    start: Instant,
    /// Bits of an `f64`: seconds from `start` to the moment at which the bucket was empty.
    empty_at: AtomicU64,
}

impl Bucket {
    /// A full bucket. `interval` is not zero.
    pub fn new(max: u32, per_fill: u32, interval: Duration) -> Self {
        let (max, rate) = (f64::from(max), f64::from(per_fill) / interval.as_secs_f64());
        Self {
            max,
            rate,
            start: Instant::now(),
            empty_at: AtomicU64::new((-max / rate).to_bits()),
        }
    }

    /// Takes so many tokens, or none when there are fewer. Taking nothing fails, as it does in Envoy.
    pub fn take(&self, tokens: f64, now: Instant) -> bool {
        let now = self.seconds(now);
        let fullest = now - self.max / self.rate;
        let taken = self.empty_at.fetch_update(Relaxed, Relaxed, |bits| {
            let empty_at = f64::from_bits(bits).max(fullest);
            ((now - empty_at) * self.rate + ROUNDING >= tokens).then(|| (empty_at + tokens / self.rate).to_bits())
        });
        taken.is_ok() && tokens > 0.0
    }

    /// `max_tokens`
    pub fn max(&self) -> u64 {
        self.max as u64
    }

    /// Tokens per second: of several buckets the slowest is asked first.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Whole tokens left.
    pub fn remaining(&self, now: Instant) -> u64 {
        self.level(now) as u64
    }

    /// Seconds until there is a token again, rounded up; 0 when there is one.
    pub fn reset_seconds(&self, now: Instant) -> u64 {
        let missing = 1.0 - self.level(now);
        if missing <= 0.0 {
            return 0;
        }
        (missing / self.rate).ceil() as u64
    }

    fn level(&self, now: Instant) -> f64 {
        let passed = self.seconds(now) - f64::from_bits(self.empty_at.load(Relaxed));
        (passed * self.rate + ROUNDING).clamp(0.0, self.max)
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.start).as_secs_f64()
    }
}
