//! Finding out the peers of a request, and telling them of this proxy's workload
//! (`io.istio.http.peer_metadata.Config`). The first way of finding out that succeeds wins.
//!
//! What is found goes into filter state, where `istio.stats`, access logs and expressions read it.

mod cache;
mod config;
mod filter;

use std::sync::Arc;

use xds_protos::io::istio::http::peer_metadata::Config as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilter, HttpFilterConfig, HttpFilterFactory, StreamCx},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.peer_metadata";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(PeerMetadata(Arc::new(config::Config::build(proto, cx)?))))
    }
}

struct PeerMetadata(Arc<config::Config>);

impl HttpFilterConfig for PeerMetadata {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(filter::Filter::new(self.0.clone())))
    }
}

#[cfg(test)]
mod tests;
