//! HTTP basic authentication (`envoy.filters.http.basic_auth`).

mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::basic_auth::v3::{BasicAuth, BasicAuthPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.basic_auth";
    type Proto = BasicAuth;
    type RouteProto = BasicAuthPerRoute;

    fn build(&self, proto: BasicAuth, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::BasicAuthFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: BasicAuthPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => BasicAuthPerRoute { supported { users } });
        Ok(Arc::new(config::Users::build(users, cx)?))
    }
}

#[cfg(test)]
mod tests;
