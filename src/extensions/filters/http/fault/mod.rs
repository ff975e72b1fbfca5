//! Fault injection (`envoy.filters.http.fault`): delays, aborts and slow responses, to see how others bear them.

mod config;
mod filter;
mod rate;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::fault::v3::HttpFault;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.fault";
    type Proto = HttpFault;
    type RouteProto = HttpFault;

    fn build(&self, proto: HttpFault, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        let settings = Arc::new(config::Settings::build(proto, cx)?);
        let scope = cx.server.stats.scope(&format!("{}fault", cx.http_prefix));
        Ok(Arc::new(filter::FaultFilter(Arc::new(filter::Shared {
            settings,
            stats: scope.block(),
            active: Default::default(),
            scope,
        }))))
    }

    fn build_route(&self, proto: HttpFault, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(Arc::new(config::Settings::build(proto, cx)?)))
    }
}

#[cfg(test)]
mod tests;
