//! `client_side_weighted_round_robin`: weighted round robin by what hosts report of their load.

use std::time::Duration;

use xds_protos::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin as Proto;

use super::{LbConfig, LbPolicy, SlowStart};
use crate::config::{BuildCx, ConfigResult, DurationExt};

/// How weights come from reports.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSideWrr {
    /// `blackout_period`, 10 s: how long a host must have reported before its reports count.
    pub blackout: Duration,
    /// `weight_expiration_period`, 3 min: how long a report counts.
    pub expiration: Duration,
    /// `weight_update_period`, 1 s, at least 100 ms.
    pub update: Duration,
    /// `error_utilization_penalty`: how much a share of errors adds to the utilization.
    pub error_penalty: f64,
    /// `metric_names_for_computing_utilization`
    pub metrics: Vec<String>,
}

/// The policy's message.
pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Proto {
        supported {
            blackout_period, weight_expiration_period, weight_update_period, error_utilization_penalty,
            metric_names_for_computing_utilization, slow_start_config
        }
        ignored {
            enable_oob_load_report: "reports come with responses alone",
            oob_reporting_period: "reports come with responses alone",
            oob_reporting_config: "reports come with responses alone"
        }
    });
    let mut config = LbConfig::new(LbPolicy::RoundRobin);
    config.slow_start = cx
        .opt("slow_start_config", slow_start_config, SlowStart::new)?
        .flatten();
    let own = ClientSideWrr {
        blackout: blackout_period.or_duration(Duration::from_secs(10)),
        expiration: weight_expiration_period.or_duration(Duration::from_secs(180)),
        update: weight_update_period
            .or_duration(Duration::from_secs(1))
            .max(Duration::from_millis(100)),
        error_penalty: error_utilization_penalty.map_or(0.0, |v| v.value.into()),
        metrics: metric_names_for_computing_utilization,
    };
    config.client_side = Some(own.into());
    Ok(config)
}
