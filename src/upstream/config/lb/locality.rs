//! `LocalityLbConfig`, which several policies carry.

use xds_protos::envoy::extensions::load_balancing_policies::common::v3::{
    LocalityLbConfig as Proto, locality_lb_config::LocalityConfigSpecifier,
};

use super::{LbConfig, ZoneAware};
use crate::config::BuildCx;

/// How localities share the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalityLb {
    /// All hosts of a priority are one set, unless zone-aware routing divides them.
    #[default]
    None,
    /// By `LocalityLbEndpoints.load_balancing_weight`.
    Weighted,
}

/// Sets what a policy says of localities.
pub fn apply(config: &mut LbConfig, proto: Option<Proto>, cx: &mut BuildCx<'_>) {
    match proto.and_then(|l| l.locality_config_specifier) {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => config.locality = LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            (config.zone, config.fail_traffic_on_panic) = ZoneAware::new(zone, cx);
        }
        None => {}
    }
}
