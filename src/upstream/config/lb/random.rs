//! `random`.

use xds_protos::envoy::extensions::load_balancing_policies::random::v3::Random;

use super::{LbConfig, LbPolicy, locality};
use crate::config::{BuildCx, ConfigResult};

/// The policy's message.
pub fn build(proto: Random, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Random { supported { locality_lb_config } });
    let mut config = config();
    locality::apply(&mut config, locality_lb_config, cx);
    Ok(config)
}

/// `RANDOM` of the older API, which says no more.
pub fn config() -> LbConfig {
    LbConfig::new(LbPolicy::Random)
}
