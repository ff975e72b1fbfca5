//! `lb_policy` with `lb_config`, the older of the two APIs.

use xds_protos::envoy::config::cluster::v3::cluster::{LbConfig as Config, LbPolicy as Policy};

use super::{LbConfig, LbPolicy, cluster_provided, least_request, maglev, random, ring_hash, round_robin};
use crate::config::{BuildCx, ConfigError, ConfigResult};

/// Reads the policy, and the configuration of whatever policy is given with it: only the policy's own counts, but
/// all are checked.
pub fn build(policy: i32, config: Option<Config>, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let policy = Policy::try_from(policy).map_err(|_| cx.error_at("lb_policy", "unknown value"))?;
    let (mut round_robin, mut least_request, mut ring, mut table, mut original_dst) = Default::default();
    match config {
        Some(Config::RoundRobinLbConfig(proto)) => round_robin = Some(proto),
        Some(Config::LeastRequestLbConfig(proto)) => least_request = Some(proto),
        Some(Config::RingHashLbConfig(proto)) => ring = Some(proto),
        Some(Config::MaglevLbConfig(proto)) => table = Some(proto),
        Some(Config::OriginalDstLbConfig(proto)) => original_dst = Some(proto),
        None => {}
    }
    let slow_start = cx.opt("round_robin_lb_config", round_robin, round_robin::legacy)?;
    let least_request = cx.opt("least_request_lb_config", least_request, least_request::legacy)?;
    let ring = cx.opt("ring_hash_lb_config", ring, ring_hash::legacy)?;
    let maglev = cx.opt("maglev_lb_config", table, maglev::legacy)?;
    let mut config = match policy {
        Policy::RoundRobin => LbConfig::new(LbPolicy::RoundRobin),
        Policy::LeastRequest => LbConfig::new(LbPolicy::LeastRequest(Default::default())),
        Policy::Random => random::config(),
        Policy::RingHash => LbConfig::new(LbPolicy::RingHash(ring.unwrap_or_default())),
        Policy::Maglev => LbConfig::new(LbPolicy::Maglev(maglev.unwrap_or_default())),
        Policy::ClusterProvided => cluster_provided::config(),
        Policy::LoadBalancingPolicyConfig => return Err(needs_extension(cx)),
    };
    config.slow_start = slow_start.flatten();
    if let Some((own, slow_start)) = least_request {
        config.slow_start = slow_start;
        if policy == Policy::LeastRequest {
            config.policy = LbPolicy::LeastRequest(own);
        }
    }
    config.original_dst = original_dst;
    Ok(config)
}

/// `LOAD_BALANCING_POLICY_CONFIG` without one.
pub fn needs_extension(cx: &BuildCx<'_>) -> ConfigError {
    cx.error("cluster: field load_balancing_policy need to be set")
}
