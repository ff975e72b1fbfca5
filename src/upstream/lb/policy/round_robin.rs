//! `round_robin`: one after the other, or by weight where weights differ.

use super::{Pool, schedule::Schedule};
use crate::upstream::{Host, config::LbConfig};

/// Round robin over one set of hosts.
#[derive(Debug)]
pub struct RoundRobin {
    /// Goes on where it was when hosts change.
    next: usize,
    schedule: Schedule,
}

impl RoundRobin {
    /// Workers start apart, or all of them would send their first requests to the same host.
    pub fn new(random: &mut fastrand::Rng) -> Self {
        Self {
            next: random.usize(..),
            schedule: Schedule::default(),
        }
    }

    /// The next of `hosts`, which are not none.
    pub fn pick(&mut self, hosts: &Pool, config: &LbConfig, random: &mut fastrand::Rng) -> Option<usize> {
        let weight = |host: &Host| f64::from(host.weight());
        match self.schedule.weighted(hosts, config, false, weight, random) {
            Some(index) => Some(index),
            None => {
                let index = self.next.checked_rem(hosts.len())?;
                self.next = self.next.wrapping_add(1);
                Some(index)
            }
        }
    }

    /// The hosts are others now, or their weights.
    pub fn hosts_changed(&mut self) {
        self.schedule = Schedule::default();
    }
}
