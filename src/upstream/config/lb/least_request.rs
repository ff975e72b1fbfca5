//! `least_request`, in both APIs.

use xds_protos::envoy::{
    config::cluster::v3::cluster::LeastRequestLbConfig,
    extensions::load_balancing_policies::least_request::v3::{LeastRequest as Proto, least_request::SelectionMethod},
};

use super::{LbConfig, LbPolicy, SlowStart, locality};
use crate::config::{BuildCx, ConfigResult};

/// The least busy of some hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct LeastRequest {
    /// `choice_count`, 2: how many are compared when weights are equal.
    pub choices: u32,
    /// `active_request_bias`, 1: how much load lowers a weight when weights differ.
    pub bias: f64,
    /// `selection_method: FULL_SCAN`: all are compared.
    pub full_scan: bool,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self {
            choices: 2,
            bias: 1.0,
            full_scan: false,
        }
    }
}

/// The policy's message.
pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Proto {
        supported {
            choice_count, active_request_bias, locality_lb_config, enable_full_scan, selection_method,
            slow_start_config
        }
    });
    let mut config = LbConfig::new(LbPolicy::LeastRequest(LeastRequest {
        choices: choice_count.map_or(2, |v| v.value),
        bias: active_request_bias.map_or(1.0, |v| v.default_value),
        full_scan: selection_method == SelectionMethod::FullScan as i32 || enable_full_scan.is_some_and(|v| v.value),
    }));
    locality::apply(&mut config, locality_lb_config, cx);
    config.slow_start = cx
        .opt("slow_start_config", slow_start_config, SlowStart::new)?
        .flatten();
    Ok(config)
}

/// `least_request_lb_config`
pub fn legacy(proto: LeastRequestLbConfig, cx: &mut BuildCx<'_>) -> ConfigResult<(LeastRequest, Option<SlowStart>)> {
    coverage!(cx, proto => LeastRequestLbConfig {
        supported { choice_count, active_request_bias, slow_start_config }
    });
    let slow_start = cx.opt("slow_start_config", slow_start_config, SlowStart::old)?;
    let policy = LeastRequest {
        choices: choice_count.map_or(2, |v| v.value),
        bias: active_request_bias.map_or(1.0, |v| v.default_value),
        full_scan: false,
    };
    Ok((policy, slow_start.flatten()))
}
