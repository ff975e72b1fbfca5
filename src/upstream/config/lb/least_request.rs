//! `least_request`, in both APIs.

use xds_protos::envoy::{
    config::cluster::v3::cluster::LeastRequestLbConfig,
    extensions::load_balancing_policies::least_request::v3::{LeastRequest as Proto, least_request::SelectionMethod},
};

use super::{LbConfig, LbPolicy, SlowStart, locality};
use crate::{
    config::{BuildCx, ConfigResult},
    runtime::RuntimeDouble,
};

/// The least busy of some hosts.
#[derive(Debug, Clone)]
pub struct LeastRequest {
    /// `choice_count`, 2: how many are compared when weights are equal.
    pub choices: u32,
    /// `active_request_bias`, 1: how much load lowers a weight when weights differ.
    pub bias: Option<RuntimeDouble>,
    /// `selection_method: FULL_SCAN`: all are compared.
    pub full_scan: bool,
}

impl LeastRequest {
    /// The bias as of now; what makes no sense is the default.
    pub fn bias(&self) -> f64 {
        let bias = self.bias.as_ref().map_or(1.0, RuntimeDouble::value);
        if bias >= 0.0 { bias } else { 1.0 }
    }
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self {
            choices: 2,
            bias: None,
            full_scan: false,
        }
    }
}

/// The policy's message.
pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Proto {
        supported {
            choice_count, active_request_bias, locality_lb_config, selection_method, slow_start_config
        }
        ignored { enable_full_scan: "selection_method says whether all hosts are compared" }
    });
    let mut config = LbConfig::new(LbPolicy::LeastRequest(LeastRequest {
        choices: choice_count.map_or(2, |v| v.value),
        bias: cx.opt("active_request_bias", active_request_bias, RuntimeDouble::build)?,
        full_scan: selection_method == SelectionMethod::FullScan as i32,
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
        bias: cx.opt("active_request_bias", active_request_bias, RuntimeDouble::build)?,
        full_scan: false,
    };
    Ok((policy, slow_start.flatten()))
}
