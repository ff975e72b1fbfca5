//! Upstream connections are made from the client's address (`envoy.filters.http.original_src`).

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::original_src::v3::OriginalSrc as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::{
        RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, HttpFilterFactory, Step, StreamCx},
    },
    net::OriginalSource,
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.original_src";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => Proto { supported { mark } });
        Ok(Arc::new(OriginalSrc { mark }))
    }
}

#[derive(Clone, Copy)]
struct OriginalSrc {
    mark: u32,
}

impl HttpFilterConfig for OriginalSrc {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(*self))
    }
}

impl HttpFilter for OriginalSrc {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, _: &'a mut RequestHead, _: bool) -> Step<'a> {
        // The client as it is trusted, which x-forwarded-for may have told.
        if let Some(address) = cx.info.remote_address().ip() {
            let mark = self.mark;
            cx.info.original_source = Some(OriginalSource { address, mark });
        }
        Step::Continue
    }
}
