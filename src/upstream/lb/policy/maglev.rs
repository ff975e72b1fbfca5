//! `maglev`: a table of a prime number of slots, each of which belongs to a host.

use crate::upstream::{
    config::Maglev as Config,
    lb::hashing::{HostKey, Shares, WeightedHosts},
};

/// The index of the host for each slot, in as many bytes as the number of hosts needs.
#[derive(Debug)]
pub enum Table {
    /// Up to 256 hosts.
    Small(Box<[u8]>),
    /// Up to 65,536 hosts.
    Medium(Box<[u16]>),
    /// More.
    Large(Box<[u32]>),
}

/// A host while the table is filled.
struct Entry {
    index: u32,
    offset: u64,
    skip: u64,
    next: u64,
}

/// Whose turn it is: the heaviest host takes a slot in every round, others as often as their weight says.
struct Turns {
    weights: Vec<f64>,
    targets: Vec<f64>,
    greatest: f64,
    round: f64,
    at: usize,
}

impl Table {
    /// A table shared by the weights of `hosts`.
    pub fn new(hosts: &WeightedHosts, config: &Config) -> Self {
        let size = config.table_size.max(2);
        let order = order(hosts, config);
        let mut entries: Vec<Entry> = order
            .iter()
            .map(|(key, index)| Entry {
                index: *index,
                offset: key.xx_hash(0) % size,
                skip: key.xx_hash(1) % (size - 1) + 1,
                next: 0,
            })
            .collect();
        let mut slots: Vec<Option<u32>> = vec![None; if entries.is_empty() { 0 } else { size as usize }];
        for turn in Turns::new(hosts, &order).take(slots.len()) {
            let entry = &mut entries[turn];
            loop {
                let slot = (entry.offset + entry.skip * entry.next) % size;
                entry.next += 1;
                if let slot @ None = &mut slots[slot as usize] {
                    *slot = Some(entry.index);
                    break;
                }
            }
        }
        let slots = slots.into_iter().map(Option::unwrap_or_default);
        match hosts.len() {
            ..=0x100 => Self::Small(slots.map(|i| i as u8).collect()),
            0x101..=0x1_0000 => Self::Medium(slots.map(|i| i as u16).collect()),
            _ => Self::Large(slots.collect()),
        }
    }

    /// The indices of the hosts of all slots.
    #[cfg(test)]
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        (0..self.len() as u64).filter_map(|hash| self.choose(hash, 0))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        match self {
            Self::Small(slots) => slots.len(),
            Self::Medium(slots) => slots.len(),
            Self::Large(slots) => slots.len(),
        }
    }

    /// The index of the host of `hash`; another one for each `attempt`.
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = match attempt {
            0 => hash,
            // Most bits change, so that not all attempts lead to one host.
            n => hash ^ (u64::MAX - u64::from(n) + 1),
        };
        let slot = |len: usize| (hash % len.max(1) as u64) as usize;
        match self {
            Self::Small(slots) => slots.get(slot(slots.len())).map(|i| usize::from(*i)),
            Self::Medium(slots) => slots.get(slot(slots.len())).map(|i| usize::from(*i)),
            Self::Large(slots) => slots.get(slot(slots.len())).map(|i| *i as usize),
        }
    }
}

/// How the hosts would share a table.
pub fn shares(hosts: &WeightedHosts, config: &Config) -> Shares {
    let size = config.table_size.max(2);
    let count = hosts.len() as u64;
    match count {
        0 => return Shares::default(),
        // Envoy needs no table for it.
        1 => return Shares { size, min: 1, max: 1 },
        _ => {}
    }
    let (min, max) = if hosts.least() == hosts.greatest() {
        (size / count, size.div_ceil(count))
    } else {
        let mut slots = vec![0_u64; hosts.len()];
        for turn in Turns::new(hosts, &order(hosts, config)).take(size as usize) {
            slots[turn] += 1;
        }
        let few = slots.iter().copied().min();
        (few.unwrap_or(0), slots.iter().copied().max().unwrap_or(0))
    };
    Shares { size, min, max }
}

/// Who comes first takes the slot: the order is that of the keys, so that it does not depend on the configuration's.
fn order(hosts: &WeightedHosts, config: &Config) -> Vec<(HostKey, u32)> {
    let key = |host: &_| HostKey::new(host, config.hashing.use_hostname);
    let mut order: Vec<_> = hosts.iter().map(|(host, _)| key(host)).zip(0..).collect();
    order.sort_by(|a, b| a.0.cmp(&b.0));
    order
}

impl Turns {
    fn new(hosts: &WeightedHosts, order: &[(HostKey, u32)]) -> Self {
        Self {
            weights: order.iter().map(|(_, i)| hosts.share(*i as usize)).collect(),
            targets: vec![0.0; order.len()],
            greatest: hosts.greatest(),
            round: 1.0,
            at: 0,
        }
    }
}

impl Iterator for Turns {
    type Item = usize;

    /// The place in the order of who takes a slot now; endless unless there is nobody.
    fn next(&mut self) -> Option<usize> {
        if self.weights.is_empty() {
            return None;
        }
        loop {
            if self.at == self.weights.len() {
                self.at = 0;
                self.round += 1.0;
            }
            let at = self.at;
            self.at += 1;
            if self.round * self.weights[at] >= self.targets[at] {
                self.targets[at] += self.greatest;
                return Some(at);
            }
        }
    }
}
