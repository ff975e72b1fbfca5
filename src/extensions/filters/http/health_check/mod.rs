//! Health checks of this proxy (`envoy.filters.http.health_check`): answered here, or passed on to the upstream.

mod cache;
mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::health_check::v3::HealthCheck;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.health_check";
    type Proto = HealthCheck;
    type RouteProto = HealthCheck;

    fn build(&self, proto: HealthCheck, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::HealthCheckFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }
}

#[cfg(test)]
mod tests;
