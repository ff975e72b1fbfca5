//! `slow_start_config`: hosts that are new or were found well again get their full weight step by step.

use xds_protos::{
    envoy::{
        config::{cluster::v3::cluster::SlowStartConfig as Old, core::v3::RuntimeDouble as ProtoDouble},
        extensions::load_balancing_policies::common::v3::SlowStartConfig as New,
        r#type::v3::Percent,
    },
    google::protobuf::Duration,
};

use crate::{
    config::{BuildCx, ConfigResult, millis, percent},
    runtime::RuntimeDouble,
};

/// How the weight of a host grows.
#[derive(Debug, Clone)]
pub struct SlowStart {
    /// `slow_start_window`, milliseconds
    pub window: u64,
    /// `aggression`, 1: linear; the greater, the faster at first.
    aggression: Option<RuntimeDouble>,
    /// `min_weight_percent`, 10, as a share of 1.
    min: f64,
}

impl SlowStart {
    /// The older API's message; none without a window.
    pub fn old(proto: Old, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Self>> {
        coverage!(cx, proto => Old { supported { slow_start_window, aggression, min_weight_percent } });
        Self::of(slow_start_window, aggression, min_weight_percent, cx)
    }

    /// The policies' message; none without a window.
    pub fn new(proto: New, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Self>> {
        coverage!(cx, proto => New { supported { slow_start_window, aggression, min_weight_percent } });
        Self::of(slow_start_window, aggression, min_weight_percent, cx)
    }

    fn of(
        window: Option<Duration>,
        aggression: Option<ProtoDouble>,
        min: Option<Percent>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Option<Self>> {
        let window = window.as_ref().map_or(0, millis);
        let aggression = cx.opt("aggression", aggression, RuntimeDouble::build)?;
        Ok((window > 0).then_some(Self {
            window,
            aggression,
            min: min.as_ref().map_or(10.0, percent) / 100.0,
        }))
    }

    /// The share of its weight that a host has after so many milliseconds.
    pub fn factor(&self, well_for: u64) -> f64 {
        if well_for >= self.window {
            return 1.0;
        }
        let time = well_for.max(1) as f64 / self.window as f64;
        let aggression = self.aggression.as_ref().map_or(1.0, RuntimeDouble::value);
        let grown = match aggression {
            a if a == 1.0 || a <= 0.0 => time,
            a => time.powf(1.0 / a),
        };
        grown.max(self.min)
    }
}

#[cfg(test)]
mod tests;
