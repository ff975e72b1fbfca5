//! Waiting between attempts: Envoy's exponential back-off with full jitter.

use std::time::Duration;

/// Doubles from `base` to `max`; each wait is drawn evenly from below the current step, so that the proxies of a
/// fleet do not come back at once.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Envoy's default base and cap for xDS streams.
    pub const DEFAULT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

    pub fn new(base: Duration, max: Duration) -> Self {
        let base = base.max(Duration::from_millis(1));
        Self {
            base,
            max: max.max(base),
            next: base,
        }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step.mul_f64(fastrand::f64())
    }

    /// Starts over: a message came.
    pub fn reset(&mut self) {
        self.next = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_a_doubling_step_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        for step in [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000] {
            assert_eq!(backoff.next, Duration::from_millis(step));
            assert!(backoff.wait() < Duration::from_millis(step));
        }
        backoff.reset();
        assert_eq!(backoff.next, Duration::from_millis(500));
    }
}
