//! Scripts (`envoy.filters.http.lua`): `envoy_on_request` and `envoy_on_response` see a stream through a handle and may
//! read and change its headers, bodies and trailers, answer it, or call others.
//!
//! A script runs in a virtual machine of its own on each worker ([`vm`]), each stream in a coroutine of it. Where the
//! script waits (a body, a call), the coroutine yields what it waits for ([`stream::Op`]); [`run`] provides it and resumes.
//! A script that fails is counted and logged, and the stream goes on without it.

mod body;
mod buffer;
mod call;
mod config;
mod crypto;
mod filter;
mod handle;
mod headers;
mod info;
mod metadata;
mod run;
mod stream;
mod vm;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::lua::v3::{Lua, LuaPerRoute};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.lua";
    type Proto = Lua;
    type RouteProto = LuaPerRoute;

    fn build(&self, proto: Lua, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::LuaFilter(Arc::new(config::Config::build(proto, cx)?))))
    }

    fn build_route(&self, proto: LuaPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(config::PerRoute::build(proto, cx)?))
    }
}

#[cfg(test)]
mod tests;
