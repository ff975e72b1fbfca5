//! `preconnect_policy`: connections that are opened ahead of requests.

use std::sync::Arc;

use xds_protos::envoy::config::cluster::v3::cluster::PreconnectPolicy as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    matching::MetadataMatcher,
    upstream::Host,
};

/// How many streams connections are opened for, per stream there is; 1 opens none ahead.
#[derive(Debug, Clone)]
pub struct Preconnect {
    /// `per_upstream_preconnect_ratio`, of one host's streams.
    pub per_upstream: f64,
    /// `predictive_preconnect_ratio`, of the cluster's streams.
    pub predictive: f64,
    /// `preconnect_enabled_metadata`: only endpoints whose metadata match are connected to ahead.
    endpoints: Option<Arc<MetadataMatcher>>,
}

impl Default for Preconnect {
    fn default() -> Self {
        Self {
            per_upstream: 1.0,
            predictive: 1.0,
            endpoints: None,
        }
    }
}

impl Preconnect {
    /// Reads the policy, whose ratios the API's rules keep between 1 and 3.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { per_upstream_preconnect_ratio, predictive_preconnect_ratio, preconnect_enabled_metadata }
        });
        let endpoints = cx.opt(
            "preconnect_enabled_metadata",
            preconnect_enabled_metadata,
            MetadataMatcher::build,
        )?;
        Ok(Self {
            per_upstream: per_upstream_preconnect_ratio.map_or(1.0, |v| v.value),
            predictive: predictive_preconnect_ratio.map_or(1.0, |v| v.value),
            endpoints: endpoints.map(Arc::new),
        })
    }

    /// Whether connections to this host are opened ahead.
    pub fn is_for(&self, host: &Host) -> bool {
        let Some(matcher) = &self.endpoints else {
            return true;
        };
        let attributes = host.attributes();
        matcher.matches(|filter| attributes.metadata.get(filter))
    }
}
