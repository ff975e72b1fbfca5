//! What follows each value of one criterion, and what follows when the criterion is not asked.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
};

use ipnet::IpNet;

/// By value.
pub(super) struct Level<K, T> {
    by_key: HashMap<K, T, foldhash::fast::FixedState>,
    any: Option<Box<T>>,
}

impl<K, T> Default for Level<K, T> {
    fn default() -> Self {
        Self {
            by_key: HashMap::default(),
            any: None,
        }
    }
}

impl<K: Eq + Hash, T: Default> Level<K, T> {
    /// What follows `key`, made if it is new; without a key what follows when nothing is asked.
    pub fn entry(&mut self, key: Option<K>) -> &mut T {
        match key {
            Some(key) => self.by_key.entry(key).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    /// What follows exactly this value.
    pub fn exact<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        self.by_key.get(key)
    }

    /// What follows when nothing is asked.
    pub fn any(&self) -> Option<&T> {
        self.any.as_deref()
    }

    /// What follows this value, else what follows any.
    pub fn find<Q: Eq + Hash + ?Sized>(&self, key: Option<&Q>) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        key.and_then(|k| self.exact(k)).or(self.any())
    }
}

/// By address: the longest prefix counts.
pub(super) struct Prefixes<T> {
    level: Level<IpNet, T>,
    /// The lengths that are used.
    lengths: BTreeSet<u8>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self {
            level: Level::default(),
            lengths: BTreeSet::new(),
        }
    }
}

impl<T: Default> Prefixes<T> {
    /// As [`Level::entry`].
    pub fn entry(&mut self, net: Option<IpNet>) -> &mut T {
        self.lengths.extend(net.map(|n| n.prefix_len()));
        self.level.entry(net)
    }

    /// What follows the longest prefix of this address.
    pub fn find(&self, ip: Option<IpAddr>) -> Option<&T> {
        let longest = ip.and_then(|ip| {
            let nets = self.lengths.iter().rev().filter_map(|len| IpNet::new(ip, *len).ok());
            nets.into_iter().find_map(|net| self.level.exact(&net.trunc()))
        });
        longest.or(self.level.any())
    }
}
