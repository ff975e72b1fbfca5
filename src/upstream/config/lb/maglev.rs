//! `maglev`, in both APIs.

use xds_protos::envoy::{
    config::cluster::v3::cluster::MaglevLbConfig, extensions::load_balancing_policies::maglev::v3::Maglev as Proto,
};

use super::{Hashing, LbConfig, LbPolicy, LocalityLb, hashing};
use crate::config::{BuildCx, ConfigResult};

/// Maglev.
#[derive(Debug, Clone, PartialEq)]
pub struct Maglev {
    /// `table_size`, 65537
    pub table_size: u64,
    /// What it shares with ring hash.
    pub hashing: Hashing,
}

impl Default for Maglev {
    fn default() -> Self {
        Self {
            table_size: 65537,
            hashing: Hashing::default(),
        }
    }
}

/// The policy's message.
pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Proto {
        supported { table_size, consistent_hashing_lb_config, locality_weighted_lb_config }
    });
    let (hashing, hash_policy) = cx
        .opt(
            "consistent_hashing_lb_config",
            consistent_hashing_lb_config,
            hashing::build,
        )?
        .unzip();
    let table_size = table_size.map_or(Maglev::default().table_size, |v| v.value);
    check(table_size, cx)?;
    let mut config = LbConfig::new(LbPolicy::Maglev(Maglev {
        table_size,
        hashing: hashing.unwrap_or_default(),
    }));
    config.hash_policy = hash_policy.flatten();
    if locality_weighted_lb_config.is_some() {
        config.locality = LocalityLb::Weighted;
    }
    Ok(config)
}

/// `maglev_lb_config`
pub fn legacy(proto: MaglevLbConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Maglev> {
    coverage!(cx, proto => MaglevLbConfig { supported { table_size } });
    let standard = Maglev::default();
    let table_size = table_size.map_or(standard.table_size, |v| v.value);
    check(table_size, cx)?;
    Ok(Maglev { table_size, ..standard })
}

fn check(size: u64, cx: &BuildCx<'_>) -> ConfigResult<()> {
    let is_prime = size > 1 && (2..).take_while(|d| d * d <= size).all(|d| !size.is_multiple_of(d));
    match is_prime {
        true => Ok(()),
        false => Err(cx.error("The table size of maglev must be prime number")),
    }
}
