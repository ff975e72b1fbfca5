//! `round_robin`, in both APIs.

use xds_protos::envoy::{
    config::cluster::v3::cluster::RoundRobinLbConfig, extensions::load_balancing_policies::round_robin::v3::RoundRobin,
};

use super::{LbConfig, LbPolicy, SlowStart, locality};
use crate::config::{BuildCx, ConfigResult};

/// The policy's message.
pub fn build(proto: RoundRobin, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => RoundRobin { supported { locality_lb_config, slow_start_config } });
    let mut config = LbConfig::new(LbPolicy::RoundRobin);
    locality::apply(&mut config, locality_lb_config, cx);
    config.slow_start = cx
        .opt("slow_start_config", slow_start_config, SlowStart::new)?
        .flatten();
    Ok(config)
}

/// `round_robin_lb_config`
pub fn legacy(proto: RoundRobinLbConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Option<SlowStart>> {
    coverage!(cx, proto => RoundRobinLbConfig { supported { slow_start_config } });
    Ok(cx
        .opt("slow_start_config", slow_start_config, SlowStart::old)?
        .flatten())
}
