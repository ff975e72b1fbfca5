//! Local rate limits (`envoy.filters.http.local_ratelimit`): token buckets in this process, without a service.
//!
//! One bucket for everything, and one for each configured descriptor that a request has. Buckets are shared by all
//! workers, or belong to one downstream connection.

mod bucket;
pub(super) mod config;
mod filter;
mod limiter;

pub use bucket::Bucket;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.local_ratelimit";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::LocalRateLimit(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        if proto.token_bucket.is_none() {
            return Err(cx.error_at(
                "token_bucket",
                "local rate limit token bucket must be set for per filter configs",
            ));
        }
        Ok(Arc::new(filter::LocalRateLimit(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }
}

#[cfg(test)]
mod tests;
