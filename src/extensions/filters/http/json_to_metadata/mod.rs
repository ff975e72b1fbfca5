//! Values of JSON bodies as dynamic metadata (`envoy.filters.http.json_to_metadata`).

mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::json_to_metadata::v3::JsonToMetadata;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.json_to_metadata";
    type Proto = JsonToMetadata;
    type RouteProto = JsonToMetadata;

    fn build(&self, proto: JsonToMetadata, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::JsonToMetadata(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: JsonToMetadata, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(Arc::new(config::Config::build(proto, cx)?)))
    }
}

#[cfg(test)]
mod tests;
