//! `random`: any host, whatever the weights.

use super::Pool;

/// The index of any of `hosts`, which are not none.
pub fn pick(hosts: &Pool, random: &mut fastrand::Rng) -> usize {
    random.usize(..hosts.len())
}
