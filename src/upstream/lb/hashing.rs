//! Ring hash and Maglev. Keys must land exactly where Envoy puts them: a fleet may be half of each.

use std::sync::Arc;

use twox_hash::XxHash64;
use xds_protos::google::protobuf::value::Kind;

use crate::upstream::{Host, config::HashFunction};

/// A ketama ring: hashes in their order, each with the index of its host.
#[derive(Debug)]
pub struct Ring(Vec<(u64, usize)>);

impl Ring {
    /// A ring of `min` to `max` points, shared by `weights`, of which those of 0 get none.
    pub fn new(
        hosts: &[Arc<Host>],
        weights: &[f64],
        min: u64,
        max: u64,
        function: HashFunction,
        use_hostname: bool,
    ) -> Self {
        let positive = weights.iter().copied().filter(|w| *w > 0.0);
        let lightest = positive.fold(f64::INFINITY, f64::min);
        if lightest.is_infinite() {
            return Self(Vec::new());
        }
        // Large enough that the lightest host gets a whole number of points, as far as `max` allows.
        let scale = ((lightest * min as f64).ceil() / lightest).min(max as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut present, mut wanted) = (0.0, 0.0);
        for (index, host) in hosts.iter().enumerate() {
            let key = hash_key(host, use_hostname);
            wanted += scale * weights[index];
            let mut number = 0_u64;
            while present < wanted {
                let text = format!("{key}_{number}");
                let hash = match function {
                    HashFunction::XxHash => XxHash64::oneshot(0, text.as_bytes()),
                    HashFunction::Murmur2 => murmur2(text.as_bytes()),
                };
                points.push((hash, index));
                number += 1;
                present += 1.0;
            }
        }
        points.sort_by_key(|(hash, _)| *hash);
        Self(points)
    }

    /// The host at or after `hash`; `attempt` goes on from there.
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let at = self.0.partition_point(|(point, _)| *point < hash);
        let len = self.0.len().max(1);
        self.0.get((at % len + attempt as usize) % len).map(|(_, index)| *index)
    }
}

/// A Maglev table: the index of the host for each slot.
#[derive(Debug)]
pub struct Maglev(Vec<u32>);

struct Entry {
    index: u32,
    offset: u64,
    skip: u64,
    weight: f64,
    target: f64,
    next: u64,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// A table of `size` slots (a prime), shared by `weights`, of which those of 0 get none.
    pub fn new(hosts: &[Arc<Host>], weights: &[f64], size: u64, use_hostname: bool) -> Self {
        let size = size.max(2);
        let heaviest = weights.iter().copied().fold(0.0, f64::max);
        let mut entries: Vec<(String, Entry)> = hosts
            .iter()
            .zip(weights)
            .enumerate()
            .filter(|(_, (_, weight))| **weight > 0.0)
            .map(|(index, (host, weight))| {
                let key = hash_key(host, use_hostname);
                let entry = Entry {
                    index: u32::try_from(index).unwrap_or(0),
                    offset: XxHash64::oneshot(0, key.as_bytes()) % size,
                    skip: XxHash64::oneshot(1, key.as_bytes()) % (size - 1) + 1,
                    weight: *weight,
                    target: 0.0,
                    next: 0,
                };
                (key, entry)
            })
            .collect();
        // Who comes first takes the slot: the order must not depend on that of the configuration.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut table = vec![FREE; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        let mut round = 1.0;
        while filled < size && !entries.is_empty() {
            for (_, entry) in &mut entries {
                // The heaviest host takes a slot in every round, others as often as their weight says.
                if filled == size || round * entry.weight < entry.target {
                    continue;
                }
                entry.target += heaviest;
                loop {
                    let slot = (entry.offset + entry.skip * entry.next) % size;
                    entry.next += 1;
                    let slot = &mut table[usize::try_from(slot).unwrap_or(0)];
                    if *slot == FREE {
                        *slot = entry.index;
                        break;
                    }
                }
                filled += 1;
            }
            round += 1.0;
        }
        Self(table)
    }

    /// The host of `hash`; another one for each `attempt`.
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = match attempt {
            0 => hash,
            n => hash ^ (u64::MAX - u64::from(n) + 1),
        };
        let slot = usize::try_from(hash % self.0.len().max(1) as u64).ok()?;
        self.0.get(slot).map(|index| *index as usize)
    }
}

/// Weights as shares of `whole`.
pub fn shares(hosts: &[Arc<Host>], whole: f64) -> impl Iterator<Item = f64> {
    let sum: f64 = hosts.iter().map(|h| f64::from(h.weight())).sum();
    hosts.iter().map(move |h| f64::from(h.weight()) * whole / sum)
}

/// The same within localities, each of which has its share by its own weight. In the order of `hosts`, which are those
/// of one priority.
pub fn shares_by_locality<'s>(localities: impl Iterator<Item = (u32, &'s [Arc<Host>])> + Clone) -> Vec<f64> {
    let sum: f64 = localities.clone().map(|(weight, _)| f64::from(weight)).sum();
    localities
        .flat_map(|(weight, hosts)| shares(hosts, f64::from(weight) / sum))
        .collect()
}

/// `hash_key` of the endpoint's `envoy.lb` metadata, or its name, or its address.
fn hash_key(host: &Host, use_hostname: bool) -> String {
    let attributes = host.attributes();
    let given = attributes
        .metadata
        .get("envoy.lb")
        .and_then(|s| s.fields.get("hash_key"));
    match given.and_then(|v| v.kind.as_ref()) {
        Some(Kind::StringValue(key)) if !key.is_empty() => key.clone(),
        _ if use_hostname => host.hostname.to_string(),
        _ => host.address.to_string(),
    }
}

/// MurmurHash2 for 64 bits as libstdc++ has it, with its seed.
fn murmur2(data: &[u8]) -> u64 {
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xc70f_6907;
    let mix = |v: u64| v ^ (v >> 47);
    let read = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |v, b| v << 8 | u64::from(*b));
    let mut hash = SEED ^ (data.len() as u64).wrapping_mul(MUL);
    let chunks = data.chunks_exact(8);
    let tail = chunks.remainder();
    for chunk in chunks {
        hash ^= mix(read(chunk).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = hash.wrapping_mul(MUL);
    }
    if !tail.is_empty() {
        hash = (hash ^ read(tail)).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}
