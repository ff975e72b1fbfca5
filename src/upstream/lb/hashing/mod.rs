//! Ring hash and Maglev: a request's hash decides. Keys must land exactly where Envoy puts them, for a fleet may be
//! half of each.
//!
//! A table is made once for all workers, by the first that needs it. As in Envoy these policies know healthy hosts, or
//! all where a priority panics, but no degraded ones.

mod bounded;
mod key;
mod weights;

use std::sync::{Arc, OnceLock};

use self::bounded::Bounded;
use super::policy::{maglev, ring_hash};
use crate::upstream::{
    Host, HostSet, HostSets,
    config::{LbConfig, LbPolicy, LocalityLb},
};

pub use key::{HostKey, hash_of};
pub use weights::WeightedHosts;

/// The tables of one snapshot of hosts, by priority.
#[derive(Debug)]
pub struct HashTables(Box<[OnceLock<HashTable>]>);

/// Where hashes lead to among the hosts of one priority.
#[derive(Debug)]
pub struct HashTable {
    hosts: WeightedHosts,
    placement: Placement,
    bound: Option<Bounded>,
}

#[derive(Debug)]
enum Placement {
    Ring(ring_hash::Ring),
    Maglev(maglev::Table),
}

/// What `ring_hash_lb.` and `maglev_lb.` tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shares {
    /// Points of the ring; not told of Maglev.
    pub size: u64,
    /// Points or slots of the host with the fewest.
    pub min: u64,
    /// Points or slots of the host with the most.
    pub max: u64,
}

impl HashTables {
    /// So many tables, none of which is made.
    pub fn new(priorities: usize) -> Self {
        Self(std::iter::repeat_with(OnceLock::new).take(priorities).collect())
    }

    /// The table of a priority. Whoever else waits for it at the same moment would only make it too.
    fn get(&self, priority: usize, make: impl FnOnce() -> HashTable) -> Option<&HashTable> {
        self.0.get(priority).map(|table| table.get_or_init(make))
    }

    /// Whether any is made: the cluster has traffic.
    pub fn are_used(&self) -> bool {
        self.0.iter().any(|table| table.get().is_some())
    }
}

impl HashTable {
    /// The table for the hosts of a priority. None where the policy does not hash.
    pub fn new(set: &HostSet, panic: bool, config: &LbConfig) -> Self {
        let hosts = weighted_hosts(set, panic, config);
        let placement = match &config.policy {
            LbPolicy::Maglev(config) => Placement::Maglev(maglev::Table::new(&hosts, config)),
            LbPolicy::RingHash(config) => Placement::Ring(ring_hash::Ring::new(&hosts, config)),
            _ => Placement::Ring(ring_hash::Ring::default()),
        };
        let factor = config.policy.hashing().and_then(|h| h.balance_factor);
        Self {
            bound: factor.map(Bounded::new),
            placement,
            hosts,
        }
    }

    /// The host for `hash`; `attempt` goes on from there. `all` are the hosts that share the load.
    pub fn choose<'h>(&self, hash: u64, attempt: u32, all: impl Iterator<Item = &'h Arc<Host>>) -> Option<Arc<Host>> {
        let index = match &self.placement {
            Placement::Ring(ring) => ring.choose(hash, attempt),
            Placement::Maglev(table) => table.choose(hash, attempt),
        }?;
        let index = match &self.bound {
            Some(bound) => bound.choose(&self.hosts, index, hash, all),
            None => index,
        };
        self.hosts.host(index).cloned()
    }
}

impl HostSets {
    /// The table of a priority, made now if it is not there yet.
    pub(super) fn table(&self, priority: usize, config: &LbConfig) -> Option<&HashTable> {
        let set = self.priorities.get(priority)?;
        self.tables
            .get(priority, || HashTable::new(set, self.panics(priority), config))
    }

    /// Makes all tables.
    pub fn make_tables(&self, config: &LbConfig) {
        for priority in 0..self.priorities.len() {
            self.table(priority, config);
        }
    }

    /// The shares of the last priority that has hosts: each overwrites those before it.
    pub fn shares(&self, config: &LbConfig) -> Shares {
        let sets = self.priorities.iter().enumerate().rev();
        let mut shares = sets.filter_map(|(i, set)| Shares::of(set, self.panics(i), config));
        shares.find(|shares| shares.max > 0).unwrap_or_default()
    }

    fn panics(&self, priority: usize) -> bool {
        self.loads.panic.get(priority).copied().unwrap_or_default()
    }
}

impl Shares {
    /// How the hosts of a priority would share a table, without making it.
    pub fn of(set: &HostSet, panic: bool, config: &LbConfig) -> Option<Self> {
        let hosts = weighted_hosts(set, panic, config);
        match &config.policy {
            LbPolicy::RingHash(config) => Some(ring_hash::shares(&hosts, config)),
            LbPolicy::Maglev(config) => Some(maglev::shares(&hosts, config)),
            _ => None,
        }
    }
}

fn weighted_hosts(set: &HostSet, panic: bool, config: &LbConfig) -> WeightedHosts {
    let by_locality = config.locality == LocalityLb::Weighted && !set.weightless;
    match (by_locality, panic) {
        (true, true) => WeightedHosts::by_locality(set.localities.iter().map(|l| (l.weight, &*l.hosts))),
        (true, false) => WeightedHosts::by_locality(set.localities.iter().map(|l| (l.weight, &*l.healthy))),
        (false, true) => WeightedHosts::flat(&set.hosts),
        (false, false) => WeightedHosts::flat(&set.healthy),
    }
}

#[cfg(test)]
mod tests;
