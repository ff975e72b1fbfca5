//! The clock of a connection: one timer for all that is timed.

use std::time::{Duration, Instant};

use super::config::Config;
use crate::net::{CopyProgress, Deadline};

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rang {
    /// Nothing has moved for the idle timeout.
    Idle,
    /// The connection is as old as it may be.
    Duration,
    /// A line is to be written.
    Flush,
}

/// When something is due.
pub(super) struct Alarm {
    /// The idle timeout of this connection.
    pub(super) idle: Option<Duration>,
    end: Option<Instant>,
    every: Option<Duration>,
    flush: Option<Instant>,
}

impl Alarm {
    /// Runs from now on.
    pub(super) fn new(config: &Config, idle: Option<Duration>) -> Self {
        let now = Instant::now();
        let every = config.log_moments.every;
        Self {
            idle,
            end: config.duration_limit().and_then(|limit| now.checked_add(limit)),
            every,
            flush: every.and_then(|every| now.checked_add(every)),
        }
    }

    /// Waits until something is due. What moves the idle timeout on is only looked at when it seems to be over.
    pub(super) async fn next(&mut self, progress: &CopyProgress) -> Rang {
        loop {
            let now = Instant::now();
            let idle = self.idle.and_then(|idle| progress.last().checked_add(idle));
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_due(self.end) {
                return Rang::Duration;
            }
            if is_due(self.flush) {
                self.flush = self.every.and_then(|every| now.checked_add(every));
                return Rang::Flush;
            }
            if is_due(idle) {
                return Rang::Idle;
            }
            match [self.end, self.flush, idle].into_iter().flatten().min() {
                Some(due) => Deadline::at(due).await,
                None => std::future::pending().await,
            }
        }
    }
}
