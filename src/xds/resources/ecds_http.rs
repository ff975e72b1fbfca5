//! A discovered HTTP filter as a filter of a chain: each stream gets the configuration of its beginning.

use std::sync::Arc;

use http::StatusCode;
use xds_protos::{envoy::config::core::v3::ExtensionConfigSource, google::protobuf::Any};

use super::ecds::{ExtensionConfigs, ExtensionSlot};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult},
    http::{
        Flag, LocalReply, RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
};

/// Builds the filter `name` of a chain with `config_discovery`.
pub fn http_filter(
    name: &str,
    source: ExtensionConfigSource,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
    for (i, url) in source.type_urls.iter().enumerate() {
        let wanted = Any {
            type_url: url.clone(),
            value: Vec::new(),
        };
        // One of Envoy's that is not built in is refused when it comes: a list may name all that a filter could be.
        let known = xds_protos::pool().get_message_by_name(wanted.type_name()).is_some();
        let alone = source.type_urls.len() == 1;
        if cx.server.registry.find_http_filter(&wanted).is_none() && (alone || !known) {
            let field = format!("type_urls[{i}]");
            return Err(cx.error_at(
                &field,
                format!("Error: no factory found for a required type URL {url}."),
            ));
        }
    }
    let slot = ExtensionConfigs::subscribe("http_filter", name, source, cx, build)?;
    Ok(Arc::new(Discovered(slot)))
}

fn build(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
    let server = cx.server.clone();
    match server.registry.find_http_filter(any) {
        Some(factory) => factory.build(any, cx),
        None => Err(cx.error(format!(
            "Didn't find a registered implementation for type URL: '{}'",
            any.type_name()
        ))),
    }
}

struct Discovered(Arc<ExtensionSlot<Arc<dyn HttpFilterConfig>>>);

impl HttpFilterConfig for Discovered {
    fn create(&self, cx: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        match self.0.load() {
            Some(config) => config.create(cx),
            None => Some(Box::new(Missing)),
        }
    }
}

/// Stands where a filter without configuration would: no request passes.
struct Missing;

impl HttpFilter for Missing {
    fn request_headers<'a>(&'a mut self, _cx: &'a mut FilterCx, _head: &'a mut RequestHead, _end: bool) -> Step<'a> {
        let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "");
        Step::Reply(Box::new(reply.flag(Flag::NoFilterConfigFound)))
    }
}
