//! Cross-origin resource sharing (`envoy.filters.http.cors`): answers preflights, and marks responses that a page of
//! another origin may read.

mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy as PolicyProto};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
    route::CorsPolicy,
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.cors";
    type Proto = Cors;
    type RouteProto = PolicyProto;

    fn build(&self, proto: Cors, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => Cors { supported {} });
        let stats = cx.server.stats.scope(&format!("{}cors", cx.http_prefix)).block();
        Ok(Arc::new(filter::CorsFilter(stats)))
    }

    fn build_route(&self, proto: PolicyProto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(CorsPolicy::build(proto, cx)?))
    }
}
