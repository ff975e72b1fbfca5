//! How long an ejection lasts: longer with each one, until the host behaves for a while.

use std::time::Duration;

use tokio::time::Instant;

/// The configured times of a penalty.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// `base_ejection_time`
    pub base: Duration,
    /// `max_ejection_time`
    pub longest: Duration,
    /// `max_ejection_time_jitter`: at most so much on top.
    pub jitter: Duration,
}

/// The penalties of one host, one after the other.
#[derive(Debug, Default)]
pub struct Penalty {
    /// When the last one began.
    began: Option<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
    /// How many times the base time it lasts.
    times: u32,
    jitter: Duration,
}

impl Penalty {
    /// Begins one, which lasts longer than the last one.
    pub fn begin(&mut self, limits: &Times) {
        if limits.base.saturating_mul(self.times) < limits.longest.saturating_add(limits.base) {
            self.times = self.times.saturating_add(1);
        }
        let most = u64::try_from(limits.jitter.as_millis()).unwrap_or(u64::MAX);
        self.jitter = Duration::from_millis(fastrand::u64(..=most));
        self.began = Some(Instant::now());
    }

    /// Whether the present one has lasted long enough.
    pub fn is_over(&self, limits: &Times, now: Instant) -> bool {
        let length = limits
            .base
            .saturating_mul(self.times)
            .min(limits.longest)
            .saturating_add(self.jitter);
        self.began
            .is_some_and(|began| length <= now.saturating_duration_since(began))
    }

    /// Ends the present one.
    pub fn end(&mut self) {
        self.ended = Some(Instant::now());
    }

    /// Makes the next one shorter, if the last one ended an interval ago.
    pub fn decay(&mut self, interval: Duration, now: Instant) {
        let behaved = self.ended.map(|ended| now.saturating_duration_since(ended));
        if behaved.is_some_and(|since| since >= interval) {
            self.times = self.times.saturating_sub(1);
        }
    }

    /// The time since the last one began.
    pub fn since_begin(&self) -> Option<Duration> {
        self.began.map(|t| t.elapsed())
    }

    /// The time since the last one ended.
    pub fn since_end(&self) -> Option<Duration> {
        self.ended.map(|t| t.elapsed())
    }
}

#[cfg(test)]
mod tests;
