//! Whether the hosts of a set are taken by weight, and which is next then: round robin and least request share it.

use super::{Edf, Pool};
use crate::upstream::{Host, config::LbConfig};

/// Settled at the first pick after the hosts changed.
#[derive(Debug, Default)]
pub enum Schedule {
    /// Not settled yet.
    #[default]
    Unsettled,
    /// All weights are equal: the policy's own way does.
    Equal,
    /// Weights differ, or some hosts start slowly.
    Weighted(Edf),
}

impl Schedule {
    /// The index of the next host by weight; none where weights are equal, unless `always`.
    pub fn weighted(
        &mut self,
        hosts: &Pool,
        config: &LbConfig,
        always: bool,
        weight: impl Fn(&Host) -> f64,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let weight = |i: usize| hosts.get(i).map_or(0.0, |host| weight(host) * started(host, config));
        if let Self::Unsettled = self {
            *self = match always || !are_equal(hosts, config) {
                true => Self::Weighted(Edf::starting_anywhere((0..hosts.len()).map(weight), random)),
                false => Self::Equal,
            };
        }
        match self {
            Self::Weighted(edf) => edf.pick(weight),
            _ => None,
        }
    }
}

/// Whether it does not matter which host is taken: weights are equal, and no host starts slowly.
fn are_equal(hosts: &Pool, config: &LbConfig) -> bool {
    let first = hosts.first().map_or(1, |h| h.weight());
    let window = config.slow_start.as_ref().map_or(0, |s| s.window);
    hosts
        .iter()
        .all(|h| h.weight() == first && (window == 0 || h.well_for() >= window))
}

/// The share of its weight that a host has in its slow start.
fn started(host: &Host, config: &LbConfig) -> f64 {
    config.slow_start.as_ref().map_or(1.0, |s| s.factor(host.well_for()))
}
