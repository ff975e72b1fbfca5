//! Filter state from formats (`envoy.filters.http.set_filter_state`).

mod filter;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::{
    common::set_filter_state::v3::{
        FilterStateValue,
        filter_state_value::{Key, SharedWithUpstream, Value},
    },
    http::set_filter_state::v3::Config as Proto,
};

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::Format,
    http::{
        filter::{HttpFilterConfig, HttpFilterFactory, RouteConfig},
        stream_info::Sharing,
    },
};

/// The extension.
pub struct Factory;

/// What makes an object of a text. Envoy's names; each is also a key that needs no other factory. All of them are kept
/// as their text here, and read as such by who knows the key.
const FACTORIES: [&str; 14] = [
    "envoy.string",
    "envoy.hashable_string",
    "envoy.network.upstream_server_name",
    "envoy.network.upstream_subject_alt_names",
    "envoy.network.application_protocols",
    "envoy.network.transport_socket.original_dst_address",
    "envoy.network.ip",
    "envoy.filters.listener.original_dst.local_ip",
    "envoy.filters.listener.original_dst.remote_ip",
    "envoy.tcp_proxy.cluster",
    "envoy.tcp_proxy.per_connection_idle_timeout_ms",
    "envoy.upstream.dynamic_host",
    "envoy.upstream.dynamic_port",
    "envoy.ratelimit.hits_addend",
];

/// One object.
pub(super) struct Entry {
    pub key: Arc<str>,
    pub format: Format,
    pub sharing: Sharing,
    pub skip_if_empty: bool,
}

/// A filter's configuration, or a route's.
pub(super) struct Config {
    pub entries: Vec<Entry>,
    pub clear_route_cache: bool,
}

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.set_filter_state";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        Ok(Arc::new(filter::SetFilterState(Config::build(proto, cx)?.into())))
    }

    fn build_route(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<RouteConfig> {
        Ok(Arc::new(Config::build(proto, cx)?))
    }
}

impl Config {
    fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { on_request_headers, clear_route_cache } });
        Ok(Self {
            entries: cx.each("on_request_headers", on_request_headers, Entry::build)?,
            clear_route_cache,
        })
    }
}

impl Entry {
    fn build(proto: FilterStateValue, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let shared = proto.shared_with_upstream();
        coverage!(cx, proto => FilterStateValue {
            supported { factory_key, shared_with_upstream, skip_if_empty, key, value }
            ignored { read_only: "deprecated, without effect in Envoy either" }
        });
        // Read by its accessor.
        let _ = shared_with_upstream;
        let Some(Key::ObjectKey(key)) = key else {
            return Err(cx.error_at("object_key", "value is required"));
        };
        let factory = if factory_key.is_empty() { &key } else { &factory_key };
        if !FACTORIES.contains(&factory.as_str()) {
            return Err(cx.error(format!("'{factory}' does not have an object factory")));
        }
        let Some(Value::FormatString(format)) = value else {
            return Err(cx.error_at("format_string", "value is required"));
        };
        Ok(Self {
            key: key.into(),
            format: cx.field("format_string", |cx| Format::build(format, cx))?,
            sharing: match shared {
                SharedWithUpstream::None => Sharing::None,
                SharedWithUpstream::Once => Sharing::Once,
                SharedWithUpstream::Transitive => Sharing::Transitive,
            },
            skip_if_empty,
        })
    }
}
