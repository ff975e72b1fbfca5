//! `envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue`: formatted texts that become filter state.

use std::{
    any::Any,
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use twox_hash::XxHash64;
use xds_protos::envoy::extensions::filters::common::set_filter_state::v3::{
    FilterStateValue as Proto,
    filter_state_value::{Key, SharedWithUpstream, Value},
};

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::stream_info::{FilterState, FilterStateObject, Sharing},
};

/// What a factory makes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// Part of an upstream connection's identity.
    Hashable,
    Number,
    Bool,
    Ip,
    Address,
}

/// Envoy's object factories whose objects are read here as text, and what texts they take.
const FACTORIES: &[(&str, Kind)] = &[
    ("envoy.string", Kind::Text),
    ("envoy.hashable_string", Kind::Hashable),
    ("istio.hashable_string", Kind::Hashable),
    ("envoy.bool", Kind::Bool),
    ("envoy.network.ip", Kind::Ip),
    ("envoy.network.network_namespace", Kind::Text),
    ("envoy.network.upstream_server_name", Kind::Text),
    ("envoy.network.upstream_subject_alt_names", Kind::Text),
    ("envoy.network.application_protocols", Kind::Text),
    ("envoy.network.transport_socket.original_dst_address", Kind::Address),
    ("envoy.filters.listener.original_dst.local_ip", Kind::Address),
    ("envoy.filters.listener.original_dst.remote_ip", Kind::Address),
    ("envoy.ratelimit.hits_addend", Kind::Number),
    ("envoy.tcp_proxy.cluster", Kind::Text),
    ("envoy.tcp_proxy.disable_tunneling", Kind::Bool),
    ("envoy.tcp_proxy.per_connection_idle_timeout_ms", Kind::Number),
    ("envoy.upstream.dynamic_host", Kind::Text),
    ("envoy.upstream.dynamic_port", Kind::Number),
];

/// Values that are set together, in order.
#[derive(Debug, Default)]
pub struct FilterStateValues(Vec<FilterStateValue>);

/// One value.
#[derive(Debug)]
pub struct FilterStateValue {
    name: Arc<str>,
    kind: Kind,
    format: Format,
    sharing: Sharing,
    skip_if_empty: bool,
}

/// A value that was made, ready to be set.
pub struct Made {
    name: Arc<str>,
    object: Text,
    sharing: Sharing,
}

impl Made {
    /// Sets it.
    pub fn set(self, state: &mut FilterState) {
        state.set(self.name, Rc::new(self.object), self.sharing, false);
    }
}

/// A text, with a hash if its factory makes hashable objects.
#[derive(Debug, Clone)]
struct Text {
    text: Arc<str>,
    hashable: bool,
    ip: Option<IpAddr>,
}

impl FilterStateObject for Text {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.text))
    }

    fn hash(&self) -> Option<u64> {
        self.hashable.then(|| XxHash64::oneshot(0, self.text.as_bytes()))
    }

    fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl FilterStateValues {
    /// Builds a list of values.
    pub fn build(field: &str, protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        cx.each(field, protos, FilterStateValue::build).map(Self)
    }

    /// Whether there is nothing to set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values, in order.
    pub fn iter(&self) -> impl Iterator<Item = &FilterStateValue> {
        self.0.iter()
    }
}

impl FilterStateValue {
    fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let shared = proto.shared_with_upstream();
        coverage!(cx, proto => Proto {
            supported { key, factory_key, value, shared_with_upstream, skip_if_empty }
            ignored { read_only: "values can always be set again, as in Envoy" }
        });
        let _ = shared_with_upstream;
        let Some(Key::ObjectKey(name)) = key else {
            return Err(cx.error_at("object_key", "value is required"));
        };
        let factory = if factory_key.is_empty() { &name } else { &factory_key };
        let Some((_, kind)) = FACTORIES.iter().find(|(known, _)| known == factory) else {
            return Err(cx.error(format!("'{name}' does not have an object factory")));
        };
        let Some(Value::FormatString(format)) = value else {
            return Err(cx.error_at("format_string", "value is required"));
        };
        Ok(Self {
            kind: *kind,
            format: cx.field("format_string", |cx| Format::build(format, cx))?,
            name: name.into(),
            sharing: match shared {
                SharedWithUpstream::None => Sharing::None,
                SharedWithUpstream::Once => Sharing::Once,
                SharedWithUpstream::Transitive => Sharing::Transitive,
            },
            skip_if_empty,
        })
    }

    /// The value for this stream; none when it is empty and may be, or no text of its kind.
    pub fn object(&self, cx: &FormatCx<'_>) -> Option<Made> {
        let mut text = Vec::new();
        self.format.write(&mut text, cx);
        let text = String::from_utf8_lossy(&text);
        let valid = match self.kind {
            Kind::Text | Kind::Hashable => true,
            Kind::Number => text.parse::<u64>().is_ok(),
            Kind::Bool => matches!(&*text, "true" | "false"),
            Kind::Ip => text.parse::<IpAddr>().is_ok(),
            Kind::Address => text.parse::<SocketAddr>().is_ok(),
        };
        if !valid || (text.is_empty() && self.skip_if_empty) {
            return None;
        }
        Some(Made {
            name: self.name.clone(),
            object: Text {
                ip: text.parse().ok().filter(|_| self.kind == Kind::Ip),
                text: text.into(),
                // Addresses are hashable as they are.
                hashable: matches!(self.kind, Kind::Hashable | Kind::Address),
            },
            sharing: self.sharing,
        })
    }
}
