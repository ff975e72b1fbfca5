//! Zipkin's API v2 as protobuf (`zipkin.proto3`).

use std::{collections::BTreeMap, net::IpAddr};

use xds_protos::prost::Message;

use super::export::{self, duration, micros};
use crate::tracing::{Kind, SpanData};

#[derive(Clone, PartialEq, Message)]
struct ListOfSpans {
    #[prost(message, repeated, tag = "1")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    parent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    /// 1: client, 2: server.
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "6")]
    timestamp: u64,
    #[prost(uint64, tag = "7")]
    duration: u64,
    #[prost(message, optional, tag = "8")]
    local_endpoint: Option<Endpoint>,
    #[prost(message, repeated, tag = "10")]
    annotations: Vec<Annotation>,
    #[prost(btree_map = "string, string", tag = "11")]
    tags: BTreeMap<String, String>,
    #[prost(bool, tag = "13")]
    shared: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Endpoint {
    #[prost(string, tag = "1")]
    service_name: String,
    #[prost(bytes = "vec", tag = "2")]
    ipv4: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    ipv6: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Annotation {
    #[prost(fixed64, tag = "1")]
    timestamp: u64,
    #[prost(string, tag = "2")]
    value: String,
}

/// A list of spans.
pub(super) fn encode(endpoint: &export::Endpoint, spans: Vec<SpanData>) -> Vec<u8> {
    let spans = spans.into_iter().map(|span| of(endpoint, span)).collect();
    ListOfSpans { spans }.encode_to_vec()
}

fn of(endpoint: &export::Endpoint, span: SpanData) -> Span {
    let context = &span.context;
    let (ipv4, ipv6) = match endpoint.address {
        IpAddr::V4(v4) => (v4.octets().to_vec(), Vec::new()),
        IpAddr::V6(v6) => (Vec::new(), v6.octets().to_vec()),
    };
    let trace_id = context.trace_id.to_be_bytes();
    let skipped = if context.wide { 0 } else { 8 };
    Span {
        trace_id: trace_id.into_iter().skip(skipped).collect(),
        // As Envoy writes them: the trace's id is big-endian, those of spans are not.
        parent_id: context.parent.map(|id| id.to_le_bytes().to_vec()).unwrap_or_default(),
        id: context.span_id.to_le_bytes().to_vec(),
        kind: match span.kind {
            Kind::Client => 1,
            Kind::Server => 2,
        },
        timestamp: micros(span.start),
        duration: duration(&span),
        local_endpoint: Some(Endpoint {
            service_name: endpoint.service.clone(),
            ipv4,
            ipv6,
        }),
        annotations: span
            .events
            .into_iter()
            .map(|(at, name)| Annotation {
                timestamp: micros(at),
                value: name.to_owned(),
            })
            .collect(),
        tags: span.tags.into_iter().map(|(k, v)| (k.into_owned(), v)).collect(),
        shared: endpoint.shared && span.kind == Kind::Server,
        name: span.name,
    }
}
