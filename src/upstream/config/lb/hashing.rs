//! `ConsistentHashingLbConfig`, which ring hash and Maglev share.

use std::sync::Arc;

use xds_protos::{
    envoy::extensions::load_balancing_policies::common::v3::ConsistentHashingLbConfig, google::protobuf::UInt32Value,
};

use crate::{
    config::{BuildCx, ConfigResult},
    route::HashPolicies,
};

/// The hash of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashFunction {
    /// xxHash64
    #[default]
    XxHash,
    /// MurmurHash2
    Murmur2,
}

/// What ring hash and Maglev have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hashing {
    /// `use_hostname_for_hashing`
    pub use_hostname: bool,
    /// `hash_balance_factor`: percent of its even share of requests in flight that a host may have.
    pub balance_factor: Option<u32>,
}

/// Reads what a policy's message says of hashing, and its own hash policies.
pub fn build(
    proto: ConsistentHashingLbConfig,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Hashing, Option<Arc<HashPolicies>>)> {
    coverage!(cx, proto => ConsistentHashingLbConfig {
        supported { use_hostname_for_hashing, hash_balance_factor, hash_policy }
    });
    let hashing = Hashing {
        use_hostname: use_hostname_for_hashing,
        balance_factor: factor(hash_balance_factor),
    };
    let policies = match hash_policy.is_empty() {
        true => None,
        false => Some(Arc::new(HashPolicies::build(hash_policy, cx)?)),
    };
    Ok((hashing, policies))
}

/// 0 means that there is no bound.
pub fn factor(proto: Option<UInt32Value>) -> Option<u32> {
    proto.map(|v| v.value).filter(|factor| *factor > 0)
}
