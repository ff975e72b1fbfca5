//! Headers and cookies as dynamic metadata (`envoy.filters.http.header_to_metadata`).

mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::header_to_metadata::v3::Config as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.header_to_metadata";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        if proto.request_rules.is_empty() && proto.response_rules.is_empty() {
            return Err(cx.error(
                "header_to_metadata_filter: Per filter configs must at least specify either request or response rules",
            ));
        }
        Ok(Arc::new(filter::HeaderToMetadata(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(Arc::new(config::Config::build(proto, cx)?)))
    }
}

#[cfg(test)]
mod tests;
