//! How many streams a pool is provisioned for, and whether that is enough: Envoy's rule of when to open a connection,
//! ahead of requests as well (`preconnect_policy`).

use std::sync::atomic::Ordering::Relaxed;

use super::core::Pool;
use crate::upstream::Health;

/// Streams of one pool, or of all pools of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait for a connection.
    pub pending: usize,
    /// Requests in flight.
    pub active: usize,
    /// Further streams that connections have room for, those being opened included.
    pub capacity: usize,
}

impl Load {
    /// Whether connections are wanted for `ratio` times the streams there are, and those that are anticipated.
    pub fn exceeds(self, ratio: f64, anticipated: usize) -> bool {
        let streams = self.pending + self.active + anticipated;
        streams as f64 * ratio > self.capacity.saturating_add(self.active) as f64
    }
}

impl std::ops::Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            pending: self.pending + other.pending,
            active: self.active + other.active,
            capacity: self.capacity.saturating_add(other.capacity),
        }
    }
}

/// How many connections one event opens ahead of requests, at most; Envoy's number.
const MOST_AHEAD: usize = 3;

impl Pool {
    /// Opens connections for those who wait and cannot be served by what is being opened already, and as many more as
    /// `per_upstream_preconnect_ratio` asks for.
    pub(super) fn connect_as_needed(self: &std::rc::Rc<Self>) {
        let ratio = self.cluster.preconnect.per_upstream;
        let mut opened = 0;
        loop {
            let load = self.load();
            let ahead = ratio > 1.0 && opened < MOST_AHEAD && self.may_open_ahead() && load.exceeds(ratio, 0);
            if !(load.pending > load.capacity || ahead) || !self.open_one() {
                return;
            }
            opened += 1;
        }
    }

    /// Opens a connection for a request that is expected to come (`predictive_preconnect_ratio`), unless there is
    /// room for it. Returns whether it did.
    pub fn preconnect(self: &std::rc::Rc<Self>, ratio: f64) -> bool {
        self.may_open_ahead() && self.load().exceeds(ratio, 1) && self.open_one()
    }

    /// A host that is not well is not to be made work for nothing, nor one that is not to be connected to ahead.
    fn may_open_ahead(&self) -> bool {
        self.host.health() == Health::Healthy && !self.is_draining() && self.cluster.preconnect.is_for(&self.host)
    }

    /// Opens a connection, as far as the breakers allow. Returns whether another may follow.
    fn open_one(self: &std::rc::Rc<Self>) -> bool {
        let breakers = self.breakers();
        let per_host = breakers.connections_per_host;
        let allowed = breakers.connections.can_create() && self.host.stats.cx_active.load(Relaxed) < per_host;
        if !allowed {
            self.cluster.stats.local().upstream_cx_overflow.inc();
        }
        // A host without any connection gets one whatever the breaker says, or those who wait would wait for ever.
        if allowed || self.has_none() {
            self.start_opening();
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_wanted_for_the_streams_there_are() {
        let load = |pending, active, capacity| Load {
            pending,
            active,
            capacity,
        };
        assert!(load(1, 0, 0).exceeds(1.0, 0));
        assert!(!load(1, 0, 1).exceeds(1.0, 0));
        assert!(!load(0, 5, 0).exceeds(1.0, 0));
    }

    #[test]
    fn a_ratio_wants_more() {
        let load = Load {
            pending: 0,
            active: 2,
            capacity: 0,
        };
        assert!(load.exceeds(1.5, 0));
        assert!(!Load { capacity: 1, ..load }.exceeds(1.5, 0));
        assert!(Load { capacity: 1, ..load }.exceeds(1.5, 1));
        let full = Load {
            capacity: usize::MAX,
            ..load
        };
        assert!(!full.exceeds(3.0, 1));
    }
}
