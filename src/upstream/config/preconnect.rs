//! `preconnect_policy`: connections that are opened ahead of requests.

use xds_protos::envoy::config::cluster::v3::cluster::PreconnectPolicy as Proto;

use crate::config::{BuildCx, ConfigResult};

/// How many streams connections are opened for, per stream there is; 1 opens none ahead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preconnect {
    /// `per_upstream_preconnect_ratio`, of one host's streams.
    pub per_upstream: f64,
    /// `predictive_preconnect_ratio`, of the cluster's streams.
    pub predictive: f64,
}

impl Default for Preconnect {
    fn default() -> Self {
        Self {
            per_upstream: 1.0,
            predictive: 1.0,
        }
    }
}

impl Preconnect {
    /// Reads the policy, whose ratios the API's rules keep between 1 and 3.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { per_upstream_preconnect_ratio, predictive_preconnect_ratio }
            rejected { preconnect_enabled_metadata: "connections ahead for some endpoints only" }
        });
        Ok(Self {
            per_upstream: per_upstream_preconnect_ratio.map_or(1.0, |v| v.value),
            predictive: predictive_preconnect_ratio.map_or(1.0, |v| v.value),
        })
    }
}
