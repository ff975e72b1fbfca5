//! Decompression (`envoy.filters.http.decompressor`): of requests, and of responses that the upstream is asked to
//! compress.

mod config;
mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::decompressor::v3::Decompressor;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.decompressor";
    type Proto = Decompressor;
    type RouteProto = Decompressor;

    fn build(&self, proto: Decompressor, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::DecompressorFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }
}
