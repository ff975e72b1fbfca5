//! The policies that know hosts by their weights and loads: a host out of one set of hosts. Those that place requests
//! by a hash keep tables instead, which all workers share (`hashing`).

pub mod client_side_wrr;
mod edf;
mod least_request;
pub mod maglev;
mod random;
pub mod ring_hash;
mod round_robin;
mod schedule;

use std::sync::Arc;

pub use edf::Edf;

use self::{least_request::LeastRequest, round_robin::RoundRobin};
use crate::upstream::{
    Host,
    config::{LbConfig, LbPolicy},
};

/// The hosts a policy chooses from.
pub type Pool = [Arc<Host>];

/// A worker's state of a policy for one set of hosts; made at its first use.
#[derive(Debug, Default)]
pub enum Picker {
    /// Nothing was picked yet.
    #[default]
    New,
    /// `round_robin`
    RoundRobin(RoundRobin),
    /// `least_request`
    LeastRequest(LeastRequest),
    /// `random`, which has no state.
    Random,
}

impl Picker {
    /// Picks one of `hosts`; none if there are none.
    pub fn pick(&mut self, hosts: &Pool, config: &LbConfig, random: &mut fastrand::Rng) -> Option<Arc<Host>> {
        if let Self::New = self {
            *self = match &config.policy {
                LbPolicy::LeastRequest(policy) => Self::LeastRequest(LeastRequest::new(policy)),
                LbPolicy::Random => Self::Random,
                _ => Self::RoundRobin(RoundRobin::new(random)),
            };
        }
        let index = match (self, hosts) {
            (_, []) => return None,
            (_, [_]) => 0,
            (Self::RoundRobin(policy), _) => policy.pick(hosts, config, random)?,
            (Self::LeastRequest(policy), _) => policy.pick(hosts, config, random)?,
            (Self::Random | Self::New, _) => random::pick(hosts, random),
        };
        hosts.get(index).cloned()
    }

    /// The hosts are others now, or their weights.
    pub fn hosts_changed(&mut self) {
        match self {
            Self::RoundRobin(policy) => policy.hosts_changed(),
            // Its bias is read anew, too.
            Self::LeastRequest(_) => *self = Self::New,
            Self::Random | Self::New => {}
        }
    }
}
