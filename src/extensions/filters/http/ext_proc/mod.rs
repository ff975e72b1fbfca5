//! External processing (`envoy.filters.http.ext_proc`): a service sees requests and responses over one gRPC stream each,
//! and may change their headers, bodies and trailers, or answer in their place.
//!
//! A stream's messages go in lockstep per direction ([`session`]): what is sent is answered before the next goes, but for
//! `FULL_DUPLEX_STREAMED` bodies. Bodies that stream are passed on by a task of their own ([`body`]).

mod body;
mod config;
mod filter;
mod message;
mod mutation;
mod session;
mod whole;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::ext_proc::v3::{ExtProcPerRoute, ExternalProcessor};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.ext_proc";
    type Proto = ExternalProcessor;
    type RouteProto = ExtProcPerRoute;

    fn build(&self, proto: ExternalProcessor, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::ExtProcFilter(Arc::new(config::Config::build(
            proto, cx,
        )?))))
    }

    fn build_route(&self, proto: ExtProcPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(config::PerRoute::build(proto, cx)?))
    }
}

#[cfg(test)]
mod tests;
