//! Whole requests (`envoy.filters.http.buffer`): a request goes on once its body is complete, with its length.

mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::buffer::v3::{Buffer, BufferPerRoute, buffer_per_route::Override};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.buffer";
    type Proto = Buffer;
    type RouteProto = BufferPerRoute;

    fn build(&self, proto: Buffer, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::BufferFilter(limit(proto, cx)?)))
    }

    fn build_route(&self, proto: BufferPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => BufferPerRoute { supported { r#override } });
        let limit = match r#override {
            Some(Override::Buffer(proto)) => Some(cx.field("buffer", |cx| limit(proto, cx))?),
            Some(Override::Disabled(_)) | None => None,
        };
        Ok(Arc::new(filter::PerRoute(limit)))
    }
}

/// `max_request_bytes`; PGV has seen to it that it is there.
fn limit(proto: Buffer, cx: &mut BuildCx<'_>) -> ConfigResult<u64> {
    coverage!(cx, proto => Buffer { supported { max_request_bytes } });
    Ok(max_request_bytes.map_or(0, |v| v.value.into()))
}
