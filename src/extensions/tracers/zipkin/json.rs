//! Zipkin's API v2 as JSON.

use serde_json::{Map, Value, json};

use super::{
    b3,
    export::{Endpoint, duration, micros},
};
use crate::tracing::{Kind, SpanData};

/// A list of spans.
pub(super) fn encode(endpoint: &Endpoint, spans: &[SpanData]) -> Vec<u8> {
    let spans: Vec<Value> = spans.iter().map(|span| of(endpoint, span)).collect();
    Value::from(spans).to_string().into_bytes()
}

fn of(endpoint: &Endpoint, span: &SpanData) -> Value {
    let mut local = Map::new();
    let family = if endpoint.address.is_ipv4() { "ipv4" } else { "ipv6" };
    local.insert(family.to_owned(), endpoint.address.to_string().into());
    local.insert("port".to_owned(), 0.into());
    if !endpoint.service.is_empty() {
        local.insert("serviceName".to_owned(), endpoint.service.clone().into());
    }
    let mut out = json!({
        "traceId": b3::trace_id(&span.context),
        "id": format!("{:016x}", span.context.span_id),
        "kind": if span.kind == Kind::Server { "SERVER" } else { "CLIENT" },
        "timestamp": micros(span.start),
        "duration": duration(span),
        "localEndpoint": local,
    });
    if let Some(parent) = span.context.parent {
        out["parentId"] = format!("{parent:016x}").into();
    }
    if !span.name.is_empty() {
        out["name"] = span.name.clone().into();
    }
    if endpoint.shared && span.kind == Kind::Server {
        out["shared"] = true.into();
    }
    let tags = span
        .tags
        .iter()
        .map(|(key, value)| (key.to_string(), Value::from(value.as_str())));
    let tags: Map<String, Value> = tags.collect();
    if !tags.is_empty() {
        out["tags"] = tags.into();
    }
    let event = |(at, name): &(_, &str)| json!({"timestamp": micros(*at), "value": name});
    out["annotations"] = span.events.iter().map(event).collect();
    out
}
