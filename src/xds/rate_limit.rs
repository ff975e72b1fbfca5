//! `rate_limit_settings`: a token bucket for requests.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that begins full.
#[derive(Debug)]
pub(super) struct RateLimit {
    max: f64,
    per_second: f64,
    tokens: f64,
    since: Instant,
}

impl RateLimit {
    pub fn new(max: f64, per_second: f64) -> Self {
        Self {
            max,
            per_second: per_second.max(f64::MIN_POSITIVE),
            tokens: max,
            since: Instant::now(),
        }
    }

    /// Takes a token; without one, when there will be.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let refill = (now - self.since).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + refill).min(self.max);
        self.since = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // At most a minute: a rate of nearly nothing must not overflow the clock.
        let wait = ((1.0 - self.tokens) / self.per_second).min(60.0);
        Err(now + Duration::from_secs_f64(wait) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_says_when_the_next_token_is_there() {
        let mut limit = RateLimit::new(2.0, 10.0);
        let now = limit.since;
        assert_eq!((limit.take(now), limit.take(now)), (Ok(()), Ok(())));
        let at = limit.take(now).unwrap_err();
        assert!(at > now + Duration::from_millis(99) && at < now + Duration::from_millis(110));
        assert_eq!(limit.take(at), Ok(()));
    }
}
