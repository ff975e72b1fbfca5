//! `wrr_locality`: localities by their weights, and `client_side_weighted_round_robin` within them.

use xds_protos::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;

use super::{LbConfig, LocalityLb, list};
use crate::config::{BuildCx, ConfigResult};

/// The policy's message.
pub fn build(proto: WrrLocality, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => WrrLocality { supported { endpoint_picking_policy } });
    let mut config = cx.required(
        "endpoint_picking_policy",
        endpoint_picking_policy,
        list::build_endpoint_picking,
    )?;
    if config.client_side.is_none() {
        return Err(cx.error(
            "Currently WrrLocalityLoadBalancer only supports ClientSideWeightedRoundRobinLoadBalancer as its endpoint \
             picking policy.",
        ));
    }
    config.locality = LocalityLb::Weighted;
    Ok(config)
}
