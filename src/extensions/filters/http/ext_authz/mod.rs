//! External authorization (`envoy.filters.http.ext_authz`): a service over gRPC or HTTP says whether a request may
//! pass, and what is added to it.

mod answer;
mod check;
mod config;
mod filter;
mod http_service;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::ext_authz::v3::{ExtAuthz as Proto, ExtAuthzPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.ext_authz";
    type Proto = Proto;
    type RouteProto = ExtAuthzPerRoute;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::ExtAuthzFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: ExtAuthzPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(config::PerRoute::build(proto, cx)?))
    }
}

#[cfg(test)]
mod tests;
