//! The policies: a host out of one set of hosts.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    edf::Edf,
    hashing::{Maglev, Ring, shares},
};
use crate::upstream::{
    Host,
    config::{LbConfig, LbPolicy},
};

/// The hosts a policy chooses from.
pub type Pool = Vec<Arc<Host>>;

/// A policy's state for one set of hosts.
pub enum Picker {
    /// All weights are equal: the next one.
    Next(usize),
    /// Weights differ.
    Weighted(Edf),
    /// Ring hash.
    Ring(Ring),
    /// Maglev.
    Maglev(Maglev),
    /// The policy has no state.
    Stateless,
}

/// Picks one of `hosts`, making the state at the first call. `weights` are those of localities, where hashing heeds them.
pub fn pick(
    picker: &mut Option<Picker>,
    hosts: &Pool,
    config: &LbConfig,
    hash: u64,
    attempt: u32,
    random: &mut fastrand::Rng,
    weights: &dyn Fn() -> Option<Vec<f64>>,
) -> Option<Arc<Host>> {
    match hosts.as_slice() {
        [] => return None,
        [only] => return Some(only.clone()),
        _ => {}
    }
    let picker = picker.get_or_insert_with(|| make(hosts, config, random, weights));
    let index = match (&mut *picker, &config.policy) {
        (Picker::Next(next), _) => {
            let index = *next % hosts.len();
            *next = index + 1;
            index
        }
        (Picker::Weighted(edf), LbPolicy::LeastRequest { bias, .. }) => {
            edf.pick(|i| load_weight(&hosts[i], *bias) * started(&hosts[i], config))?
        }
        (Picker::Weighted(edf), _) => edf.pick(|i| f64::from(hosts[i].weight()) * started(&hosts[i], config))?,
        (Picker::Ring(ring), _) => ring.choose(hash, attempt)?,
        (Picker::Maglev(table), _) => table.choose(hash, attempt)?,
        (Picker::Stateless, LbPolicy::LeastRequest { choices, full_scan, .. }) => {
            least_request(hosts, *choices, *full_scan, random)
        }
        (Picker::Stateless, _) => random.usize(..hosts.len()),
    };
    hosts.get(index).cloned()
}

fn make(hosts: &Pool, config: &LbConfig, random: &mut fastrand::Rng, weights: &dyn Fn() -> Option<Vec<f64>>) -> Picker {
    let by_weight = || weights().unwrap_or_else(|| shares(hosts, 1.0).collect());
    let first = hosts.first().map_or(1, |h| h.weight());
    let window = config.slow_start.as_ref().map_or(0, |s| s.window);
    let equal = hosts
        .iter()
        .all(|h| h.weight() == first && (window == 0 || h.well_for() >= window));
    let weighted = |weight: &dyn Fn(usize) -> f64, random: &mut fastrand::Rng| {
        let mut edf = Edf::new((0..hosts.len()).map(weight));
        // Workers start apart, or all of them would send their first requests to the same host.
        for _ in 0..random.usize(..hosts.len()) {
            edf.pick(weight);
        }
        Picker::Weighted(edf)
    };
    match &config.policy {
        LbPolicy::RoundRobin | LbPolicy::ClusterProvided if equal => Picker::Next(random.usize(..hosts.len())),
        LbPolicy::RoundRobin | LbPolicy::ClusterProvided => {
            weighted(&|i| f64::from(hosts[i].weight()) * started(&hosts[i], config), random)
        }
        LbPolicy::LeastRequest { bias, .. } if !equal => {
            weighted(&|i| load_weight(&hosts[i], *bias) * started(&hosts[i], config), random)
        }
        LbPolicy::RingHash {
            min,
            max,
            function,
            use_hostname,
        } => Picker::Ring(Ring::new(hosts, &by_weight(), *min, *max, *function, *use_hostname)),
        LbPolicy::Maglev {
            table_size,
            use_hostname,
        } => Picker::Maglev(Maglev::new(hosts, &by_weight(), *table_size, *use_hostname)),
        _ => Picker::Stateless,
    }
}

/// The share of its weight that a host has in its slow start.
fn started(host: &Host, config: &LbConfig) -> f64 {
    config.slow_start.as_ref().map_or(1.0, |s| s.factor(host.well_for()))
}

/// `weight / (active requests + 1) ^ bias`
fn load_weight(host: &Host, bias: f64) -> f64 {
    let active = host.stats.rq_active.load(Relaxed) as f64 + 1.0;
    let load = if bias == 1.0 { active } else { active.powf(bias) };
    f64::from(host.weight()) / load
}

/// The least busy of `choices` drawn at random (the same one may be drawn twice), or of all.
fn least_request(hosts: &Pool, choices: u32, full_scan: bool, random: &mut fastrand::Rng) -> usize {
    let active = |i: usize| hosts[i].stats.rq_active.load(Relaxed);
    let start = random.usize(..hosts.len());
    if full_scan {
        // Starting anywhere makes ties random.
        return (0..hosts.len())
            .map(|i| (start + i) % hosts.len())
            .min_by_key(|i| active(*i))
            .unwrap_or(start);
    }
    let mut best = start;
    for _ in 1..choices.max(1) {
        let other = random.usize(..hosts.len());
        if active(other) < active(best) {
            best = other;
        }
    }
    best
}
