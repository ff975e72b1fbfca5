//! `cluster_provided`: the cluster's type chooses.

use xds_protos::envoy::extensions::load_balancing_policies::cluster_provided::v3::ClusterProvided;

use super::{LbConfig, LbPolicy};
use crate::config::{BuildCx, ConfigResult};

/// The policy's message, which says nothing more.
pub fn build(proto: ClusterProvided, _: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let ClusterProvided {} = proto;
    Ok(config())
}

/// `CLUSTER_PROVIDED` of the older API.
pub fn config() -> LbConfig {
    LbConfig::new(LbPolicy::ClusterProvided)
}
