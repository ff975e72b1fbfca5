//! `envoy.filters.listener.original_src`: upstream connections are made from the client's address.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};
use xds_protos::envoy::extensions::filters::listener::original_src::v3::OriginalSrc as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    listener::{ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
    net::OriginalSource,
};

/// The extension.
pub struct Factory;

impl ListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.listener.original_src";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        coverage!(cx, proto => Proto {
            supported { mark }
            ignored { bind_port: "Envoy does not implement it either" }
        });
        Ok(Arc::new(OriginalSrc { mark }))
    }
}

struct OriginalSrc {
    mark: u32,
}

impl ListenerFilter for OriginalSrc {
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>> {
        // A client without an IP address has nothing that could be shown.
        if let Some(address) = cx.info.remote_address.ip() {
            let mark = self.mark;
            cx.info.original_source = Some(OriginalSource { address, mark });
        }
        Box::pin(ready(Ok(())))
    }
}
