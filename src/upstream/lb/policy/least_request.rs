//! `least_request`: the least busy of some hosts drawn at random, or by weight and load where weights differ.

use std::{cmp::Ordering, sync::atomic::Ordering::Relaxed};

use super::{Pool, schedule::Schedule};
use crate::upstream::{
    Host,
    config::{LbConfig, LeastRequest as Config},
};

/// Least request over one set of hosts.
#[derive(Debug)]
pub struct LeastRequest {
    choices: u32,
    bias: f64,
    full_scan: bool,
    schedule: Schedule,
}

impl LeastRequest {
    /// Starts without a schedule.
    pub fn new(config: &Config) -> Self {
        Self {
            choices: config.choices,
            bias: config.bias(),
            full_scan: config.full_scan,
            schedule: Schedule::default(),
        }
    }

    /// One of `hosts`, which are not none.
    pub fn pick(&mut self, hosts: &Pool, config: &LbConfig, random: &mut fastrand::Rng) -> Option<usize> {
        let bias = self.bias;
        let weight = |host: &Host| load_weight(host, bias);
        if let Some(index) = self.schedule.weighted(hosts, config, false, weight, random) {
            return Some(index);
        }
        match self.full_scan {
            true => full_scan(hosts, random),
            false => some(hosts, self.choices, random),
        }
    }
}

/// `weight / (active requests + 1) ^ bias`
fn load_weight(host: &Host, bias: f64) -> f64 {
    let active = active(host) as f64 + 1.0;
    let load = if bias == 1.0 { active } else { active.powf(bias) };
    f64::from(host.weight()) / load
}

fn active(host: &Host) -> u64 {
    host.stats.rq_active.load(Relaxed)
}

/// The least busy of all; any of those that are equally so.
fn full_scan(hosts: &Pool, random: &mut fastrand::Rng) -> Option<usize> {
    let (mut best, mut least, mut ties) = (None, u64::MAX, 0);
    for (index, host) in hosts.iter().enumerate() {
        let active = active(host);
        match active.cmp(&least) {
            Ordering::Greater => continue,
            Ordering::Less => ties = 1,
            Ordering::Equal => ties += 1,
        }
        // The n-th of equals takes over with a chance of 1 in n, which is even for all of them in the end.
        if ties == 1 || random.usize(..ties) == 0 {
            (best, least) = (Some(index), active);
        }
    }
    best
}

/// The least busy of `choices` drawn at random; the same one may be drawn twice.
fn some(hosts: &Pool, choices: u32, random: &mut fastrand::Rng) -> Option<usize> {
    (0..choices.max(1))
        .map(|_| random.usize(..hosts.len()))
        .min_by_key(|i| active(&hosts[*i]))
}
