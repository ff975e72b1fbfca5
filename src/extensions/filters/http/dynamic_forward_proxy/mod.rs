//! The dynamic forward proxy (`envoy.filters.http.dynamic_forward_proxy`): requests to a cluster of that type wait
//! here until the host they name is known.

mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{FilterConfig, PerRouteConfig};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.dynamic_forward_proxy";
    type Proto = FilterConfig;
    type RouteProto = PerRouteConfig;

    fn build(&self, proto: FilterConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        let config = config::Config::build(proto, cx)?;
        Ok(Arc::new(filter::DynamicForwardProxyFilter(Arc::new(config))))
    }

    fn build_route(&self, proto: PerRouteConfig, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(config::PerRoute::build(proto, cx)?))
    }
}
