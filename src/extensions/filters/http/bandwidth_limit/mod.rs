//! Bandwidth limits (`envoy.filters.http.bandwidth_limit`): all streams of a filter, or of a route, share so many
//! KiB per second.

mod body;
mod bucket;
mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::bandwidth_limit::v3::BandwidthLimit;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.bandwidth_limit";
    type Proto = BandwidthLimit;
    type RouteProto = BandwidthLimit;

    fn build(&self, proto: BandwidthLimit, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::BandwidthLimitFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: BandwidthLimit, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        if proto.limit_kbps.is_none() {
            return Err(cx.error_at("limit_kbps", "limit must be set for per route filter config"));
        }
        Ok(Arc::new(Arc::new(config::Config::build(proto, cx)?)))
    }
}

#[cfg(test)]
mod tests;
