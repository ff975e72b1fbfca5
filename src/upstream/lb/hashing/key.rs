//! What stands for a host in a table, and how it is hashed.

use twox_hash::XxHash64;
use xds_protos::google::protobuf::value::Kind;

use crate::upstream::{Host, config::HashFunction};

/// `hash_key` of the endpoint's `envoy.lb` metadata, or its name, or its address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostKey(String);

impl HostKey {
    /// The key of `host`.
    pub fn new(host: &Host, use_hostname: bool) -> Self {
        let attributes = host.attributes();
        let given = attributes
            .metadata
            .get("envoy.lb")
            .and_then(|s| s.fields.get("hash_key"));
        Self(match given.and_then(|v| v.kind.as_ref()) {
            Some(Kind::StringValue(key)) if !key.is_empty() => key.clone(),
            _ if use_hostname => host.hostname.to_string(),
            _ => host.address.to_string(),
        })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its xxHash64.
    pub fn xx_hash(&self, seed: u64) -> u64 {
        XxHash64::oneshot(seed, self.0.as_bytes())
    }
}

/// The hash of a point of a ring.
pub fn hash_of(text: &str, function: HashFunction) -> u64 {
    match function {
        HashFunction::XxHash => XxHash64::oneshot(0, text.as_bytes()),
        HashFunction::Murmur2 => murmur2(text.as_bytes()),
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
