//! `ring_hash`: a ketama ring.

use crate::upstream::{
    config::RingHash as Config,
    lb::hashing::{HostKey, Shares, WeightedHosts, hash_of},
};

/// Points in the order of their hashes, each with the index of its host.
#[derive(Debug, Default)]
pub struct Ring {
    points: Box<[u64]>,
    hosts: Box<[u32]>,
}

impl Ring {
    /// A ring shared by the weights of `hosts`.
    pub fn new(hosts: &WeightedHosts, config: &Config) -> Self {
        let mut points: Vec<(u64, u32)> = Vec::with_capacity(scale(hosts, config).ceil() as usize);
        for ((index, (host, _)), count) in (0..).zip(hosts.iter()).zip(counts(hosts, config)) {
            let mut text = HostKey::new(host, config.hashing.use_hostname).as_str().to_owned() + "_";
            let key = text.len();
            for number in 0..count {
                text.truncate(key);
                text.push_str(&number.to_string());
                points.push((hash_of(&text, config.function), index));
            }
        }
        points.sort_unstable_by_key(|(hash, _)| *hash);
        let (points, hosts): (Vec<u64>, Vec<u32>) = points.into_iter().unzip();
        Self {
            points: points.into(),
            hosts: hosts.into(),
        }
    }

    /// The indices of the hosts of all points.
    #[cfg(test)]
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.hosts.iter().map(|index| *index as usize)
    }

    /// The index of the host at or after `hash`; `attempt` goes on from there.
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let at = self.points.partition_point(|point| *point < hash);
        let len = self.points.len().max(1);
        self.hosts
            .get((at % len + attempt as usize) % len)
            .map(|index| *index as usize)
    }
}

/// How the hosts would share a ring.
pub fn shares(hosts: &WeightedHosts, config: &Config) -> Shares {
    if hosts.len() == 0 {
        return Shares::default();
    }
    let size = scale(hosts, config).ceil() as u64;
    Shares {
        size,
        min: counts(hosts, config).min().unwrap_or(0).min(size),
        max: counts(hosts, config).max().unwrap_or(0),
    }
}

/// How many points a weight of 1 would have: so many that the lightest host gets a whole number of them, as far as the
/// largest size allows.
fn scale(hosts: &WeightedHosts, config: &Config) -> f64 {
    let least = hosts.least();
    ((least * config.min as f64).ceil() / least).min(config.max as f64)
}

/// How many points each host has. Fractions are carried over to the next.
fn counts(hosts: &WeightedHosts, config: &Config) -> impl Iterator<Item = u64> {
    let scale = scale(hosts, config);
    let (mut present, mut wanted) = (0.0_f64, 0.0_f64);
    hosts.iter().map(move |(_, share)| {
        wanted += scale * share;
        let before = present;
        present = present.max(wanted.ceil());
        (present - before) as u64
    })
}
