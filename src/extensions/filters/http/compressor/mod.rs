//! Compression (`envoy.filters.http.compressor`): of responses that clients accept compressed, and of requests.

mod accept;
mod body;
mod config;
mod filter;
mod registry;

pub(super) use filter::no_transform;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::compressor::v3::{Compressor, CompressorPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.compressor";
    type Proto = Compressor;
    type RouteProto = CompressorPerRoute;

    fn build(&self, proto: Compressor, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::CompressorFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: CompressorPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(config::PerRoute::build(proto, cx)?))
    }
}

#[cfg(test)]
mod tests;
