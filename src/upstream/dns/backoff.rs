//! How long to wait after a failure: `dns_failure_refresh_rate`.

use std::time::Duration;

/// Pauses between failed attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// Base and maximum; without them every pause is the refresh rate.
    rates: Option<(Duration, Duration)>,
    refresh: Duration,
    next: Duration,
}

impl Backoff {
    /// `rates`: base and maximum.
    pub fn new(rates: Option<(Duration, Duration)>, refresh: Duration) -> Self {
        let next = rates.map_or(refresh, |(base, _)| base);
        Self { rates, refresh, next }
    }

    /// The pause before the next attempt: random, and twice as long at most each time.
    pub fn pause(&mut self) -> Duration {
        let Some((_, max)) = self.rates else {
            return self.refresh;
        };
        let longest = self.next;
        self.next = longest.saturating_mul(2).min(max);
        longest.mul_f64(fastrand::f64()).max(Duration::from_millis(1))
    }

    /// An attempt went well: failures count from the beginning.
    pub fn reset(&mut self) {
        self.next = self.rates.map_or(self.refresh, |(base, _)| base);
    }
}
