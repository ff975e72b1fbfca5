//! How loudly a stream's end is said: control planes restart and move, and that alone is no reason to warn.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

/// Remembers the first of a row of ends for the same reason.
#[derive(Debug)]
pub(super) struct CloseLog {
    // Envoy warns when the row lasts longer than the largest wait between attempts.
    patience: Duration,
    first: Option<(Code, Instant)>,
}

impl CloseLog {
    pub fn new(patience: Duration) -> Self {
        Self { patience, first: None }
    }

    /// A message came: the row is over.
    pub fn clear(&mut self) {
        self.first = None;
    }

    /// Logs an end: as a warning if it is one to act on, or has been going on for long.
    pub fn note(&mut self, path: &str, cluster: &str, status: &Status) {
        let method = path.rsplit('/').next().unwrap_or(path);
        let (code, message) = (status.code() as i32, status.message());
        if self.warns(status.code(), Instant::now()) {
            tracing::warn!("{method} gRPC config stream to {cluster} closed: {code}, {message}");
        } else {
            tracing::debug!("{method} gRPC config stream to {cluster} closed: {code}, {message}");
        }
    }

    fn warns(&mut self, code: Code, now: Instant) -> bool {
        match code {
            Code::Ok => return false,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {}
            _ => return true,
        }
        match self.first {
            Some((first, since)) if first == code => now - since > self.patience,
            before => {
                self.first = Some((code, now));
                before.is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_quiet_and_long_outages_are_not() {
        let mut log = CloseLog::new(Duration::from_secs(30));
        let now = Instant::now();
        let later = now + Duration::from_secs(31);
        assert!(!log.warns(Code::Ok, now));
        assert!(log.warns(Code::PermissionDenied, now));
        assert!(!log.warns(Code::Unavailable, now));
        assert!(!log.warns(Code::Unavailable, now + Duration::from_secs(20)));
        assert!(log.warns(Code::Unavailable, later));
        assert!(
            log.warns(Code::DeadlineExceeded, later),
            "for another reason than before"
        );
        log.clear();
        assert!(!log.warns(Code::Unavailable, later));
    }
}
