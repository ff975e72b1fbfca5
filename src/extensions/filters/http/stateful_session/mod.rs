//! Sticky sessions (`envoy.filters.http.stateful_session`): a request says which host its session lives on, and the
//! response tells the client when that has changed.

mod config;
mod filter;
mod state;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.stateful_session";
    type Proto = StatefulSession;
    type RouteProto = StatefulSessionPerRoute;

    fn build(&self, proto: StatefulSession, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        let config = config::Config::build(proto, true, cx)?;
        Ok(Arc::new(filter::StatefulSessionFilter(Arc::new(config))))
    }

    fn build_route(&self, proto: StatefulSessionPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        coverage!(cx, proto => StatefulSessionPerRoute { supported { r#override } });
        Ok(Arc::new(match r#override {
            Some(Override::StatefulSession(proto)) => {
                let config = cx.field("stateful_session", |cx| config::Config::build(proto, false, cx))?;
                config::PerRoute(Some(Arc::new(config)))
            }
            Some(Override::Disabled(_)) => config::PerRoute(None),
            None => return Err(cx.error_at("override", "is required")),
        }))
    }
}

#[cfg(test)]
mod tests;
