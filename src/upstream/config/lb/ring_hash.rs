//! `ring_hash`, in both APIs.

use xds_protos::envoy::{
    config::cluster::v3::cluster::{RingHashLbConfig, ring_hash_lb_config::HashFunction as OldFunction},
    extensions::load_balancing_policies::ring_hash::v3::{RingHash as Proto, ring_hash::HashFunction as NewFunction},
};

use super::{HashFunction, Hashing, LbConfig, LbPolicy, LocalityLb, hashing};
use crate::config::{BuildCx, ConfigResult};

/// Ketama.
#[derive(Debug, Clone, PartialEq)]
pub struct RingHash {
    /// `minimum_ring_size`, 1024
    pub min: u64,
    /// `maximum_ring_size`, 8 M
    pub max: u64,
    /// `hash_function`
    pub function: HashFunction,
    /// What it shares with Maglev.
    pub hashing: Hashing,
}

impl Default for RingHash {
    fn default() -> Self {
        Self {
            min: 1024,
            max: 8 << 20,
            function: HashFunction::XxHash,
            hashing: Hashing::default(),
        }
    }
}

/// The policy's message.
pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Proto {
        supported {
            hash_function, minimum_ring_size, maximum_ring_size, use_hostname_for_hashing, hash_balance_factor,
            consistent_hashing_lb_config, locality_weighted_lb_config
        }
    });
    let (hashing, hash_policy) = cx
        .opt(
            "consistent_hashing_lb_config",
            consistent_hashing_lb_config,
            hashing::build,
        )?
        .unzip();
    let standard = RingHash::default();
    let ring = RingHash {
        min: minimum_ring_size.map_or(standard.min, |v| v.value),
        max: maximum_ring_size.map_or(standard.max, |v| v.value),
        function: match hash_function == NewFunction::MurmurHash2 as i32 {
            true => HashFunction::Murmur2,
            false => HashFunction::XxHash,
        },
        hashing: hashing.unwrap_or(Hashing {
            use_hostname: use_hostname_for_hashing,
            balance_factor: hashing::factor(hash_balance_factor),
        }),
    };
    check(&ring, cx)?;
    let mut config = LbConfig::new(LbPolicy::RingHash(ring));
    config.hash_policy = hash_policy.flatten();
    if locality_weighted_lb_config.is_some() {
        config.locality = LocalityLb::Weighted;
    }
    Ok(config)
}

/// `ring_hash_lb_config`
pub fn legacy(proto: RingHashLbConfig, cx: &mut BuildCx<'_>) -> ConfigResult<RingHash> {
    coverage!(cx, proto => RingHashLbConfig {
        supported { minimum_ring_size, hash_function, maximum_ring_size }
    });
    let standard = RingHash::default();
    let ring = RingHash {
        min: minimum_ring_size.map_or(standard.min, |v| v.value),
        max: maximum_ring_size.map_or(standard.max, |v| v.value),
        function: match hash_function == OldFunction::MurmurHash2 as i32 {
            true => HashFunction::Murmur2,
            false => HashFunction::XxHash,
        },
        ..standard
    };
    check(&ring, cx)?;
    Ok(ring)
}

fn check(ring: &RingHash, cx: &BuildCx<'_>) -> ConfigResult<()> {
    let RingHash { min, max, .. } = ring;
    if min > max {
        return Err(cx.error(format!(
            "ring hash: minimum_ring_size ({min}) > maximum_ring_size ({max})"
        )));
    }
    Ok(())
}
