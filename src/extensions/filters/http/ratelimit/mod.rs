//! The rate limit service (`envoy.filters.http.ratelimit`): asks a service over gRPC whether a request may pass.

mod config;
mod filter;
mod headers;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::ratelimit::v3::{RateLimit as Proto, RateLimitPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.ratelimit";
    type Proto = Proto;
    type RouteProto = RateLimitPerRoute;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::RateLimitFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: RateLimitPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(config::PerRoute::build(proto, cx)?))
    }
}

#[cfg(test)]
mod tests;
