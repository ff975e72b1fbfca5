//! Filter state from formats (`envoy.filters.http.set_filter_state`).

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::set_filter_state::v3::Config as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::common::set_filter_state::FilterStateValues,
    formatter::FormatCx,
    http::{
        RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, HttpFilterFactory, RouteConfig, Step, StreamCx},
    },
};

/// The extension.
pub struct Factory;

/// A filter's configuration, or a route's.
struct Config {
    values: FilterStateValues,
    clear_route_cache: bool,
}

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.set_filter_state";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(SetFilterState(Config::build(proto, cx)?.into())))
    }

    fn build_route(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(Arc::new(Config::build(proto, cx)?)))
    }
}

impl Config {
    fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { on_request_headers, clear_route_cache } });
        Ok(Self {
            values: FilterStateValues::build("on_request_headers", on_request_headers, cx)?,
            clear_route_cache,
        })
    }

    fn apply(&self, cx: &mut FilterCx, head: &RequestHead) {
        for value in self.values.iter() {
            let made = value.object(&FormatCx {
                request: Some(head),
                response: None,
                info: &cx.info,
            });
            if let Some(made) = made {
                made.set(&mut cx.info.filter_state);
            }
        }
        cx.clear_route_cache |= self.clear_route_cache;
    }
}

struct SetFilterState(Arc<Config>);

impl HttpFilterConfig for SetFilterState {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Config>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        self.0.apply(cx, head);
        // The route's come last, so that they have the last word.
        if let Some(of_route) = cx.route_config::<Arc<Config>>().cloned() {
            of_route.apply(cx, head);
        }
        Step::Continue
    }
}
