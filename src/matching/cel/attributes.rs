//! Envoy's attributes: what expressions may name, and where it is found.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cel::{
    IdedExpr, Value,
    common::ast::{Expr, LiteralValue, SelectExpr, operators},
    objects::{Key, Map},
};
use http::{HeaderMap, Version};
use xds_protos::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, Value as ProtoValue, value::Kind},
};

use crate::{
    http::{
        StreamInfo,
        stream_info::{CertInfo, FilterStateObject, Metadata, TlsInfo},
    },
    matching::{HeaderLookup, tree::MatchCx},
    net::Address,
};

/// A variable of an expression.
#[derive(Debug)]
pub(super) enum Attribute {
    /// An attribute by its path.
    Named(Read),
    /// Whether there is one, for `has(..)`.
    Has(Option<Read>),
    /// One header of `request.headers`, `response.headers` or `response.trailers`.
    Header(Headers, HeaderLookup),
    /// An object of `filter_state`.
    FilterState(String),
    /// The same as a message, for a part of it that is named.
    FilterStateFields(String),
    /// Whether there is such an object.
    HasFilterState(String),
    /// The same everywhere.
    Fixed(Value),
}

type Read = fn(&MatchCx<'_>) -> Option<Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Headers {
    Request,
    Response,
    Trailers,
}

impl Attribute {
    pub(super) fn value(&self, cx: &MatchCx<'_>) -> Option<Value> {
        match self {
            Self::Named(read) => read(cx),
            Self::Has(read) => Some(Value::Bool(read.is_some_and(|read| read(cx).is_some()))),
            Self::Header(from, name) => match from {
                Headers::Request => bytes(name.get(cx.request?)?),
                Headers::Response => bytes(name.of_response(cx.response?)?),
                Headers::Trailers => {
                    let trailers = cx.stream?.response_trailers.as_ref()?;
                    bytes(trailers.get(name.as_str())?.as_bytes().into())
                }
            },
            Self::FilterState(key) => {
                let bytes = |o: &dyn FilterStateObject| o.as_bytes().or_else(|| Some(o.as_text()?.into_owned().into()));
                filter_state(cx, key, bytes).map(|v| Value::Bytes(Arc::new(v)))
            }
            Self::FilterStateFields(key) => filter_state(cx, key, |o| o.as_struct()).map(|s| structure(&s)),
            Self::Fixed(value) => Some(value.clone()),
            Self::HasFilterState(key) => Some(Value::Bool(filter_state(cx, key, |_| Some(())).is_some())),
        }
    }
}

/// Replaces attributes in the tree by variables, and lists those.
pub(super) fn bind(expr: &mut IdedExpr, found: &mut Vec<(String, Attribute)>) {
    if let Some((name, attribute)) = attribute(&expr.expr) {
        if !found.iter().any(|(known, _)| *known == name) {
            found.push((name.clone(), attribute));
        }
        expr.expr = Expr::Ident(name);
        return;
    }
    match &mut expr.expr {
        Expr::Select(select) => bind_whole(&mut select.operand, found),
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            call.args.iter_mut().for_each(|e| bind_whole(e, found));
        }
        Expr::Call(call) => {
            let parts = call.target.iter_mut().map(|t| &mut **t).chain(&mut call.args);
            parts.for_each(|e| bind(e, found));
        }
        Expr::List(list) => list.elements.iter_mut().for_each(|e| bind(e, found)),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let cel::common::ast::EntryExpr::MapEntry(e) = &mut entry.expr {
                    bind(&mut e.key, found);
                    bind(&mut e.value, found);
                }
            }
        }
        _ => {}
    }
}

/// The same for something of which a part is named: an object of filter state is a message then.
fn bind_whole(expr: &mut IdedExpr, found: &mut Vec<(String, Attribute)>) {
    let Some((_, Attribute::FilterState(key))) = attribute(&expr.expr) else {
        return bind(expr, found);
    };
    let name = format!("fields of filter_state {key}");
    if !found.iter().any(|(known, _)| *known == name) {
        found.push((name.clone(), Attribute::FilterStateFields(key)));
    }
    expr.expr = Expr::Ident(name);
}

/// The attribute that a part of a tree names, with the name of its variable. The names are none that a text can have.
fn attribute(expr: &Expr) -> Option<(String, Attribute)> {
    match expr {
        Expr::Select(SelectExpr {
            operand,
            field,
            test: true,
        }) => {
            if is_filter_state(operand) {
                let name = format!("in filter_state {field}");
                return Some((name, Attribute::HasFilterState(field.clone())));
            }
            let path = format!("{}.{field}", root(&operand.expr)?);
            let read = find(&path);
            Some((format!("has {path}"), Attribute::Has(read)))
        }
        Expr::Select(SelectExpr { operand, field, .. }) if is_filter_state(operand) => {
            Some((format!("filter_state {field}"), Attribute::FilterState(field.clone())))
        }
        Expr::Call(call) if call.func_name == operators::IN => match call.args.as_slice() {
            [key, map] if is_filter_state(map) => {
                let key = text(&key.expr)?;
                Some((format!("in filter_state {key}"), Attribute::HasFilterState(key)))
            }
            _ => None,
        },
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [map, key] = call.args.as_slice() else {
                return None;
            };
            let key = text(&key.expr)?;
            if is_filter_state(map) {
                return Some((format!("filter_state {key}"), Attribute::FilterState(key)));
            }
            let from = match path(&map.expr).as_deref() {
                Some("request.headers") => Headers::Request,
                Some("response.headers") => Headers::Response,
                Some("response.trailers") => Headers::Trailers,
                _ => return named(expr),
            };
            let name = HeaderLookup::parse(&key)?;
            Some((format!("{from:?} header {key}"), Attribute::Header(from, name)))
        }
        _ => named(expr),
    }
}

fn is_filter_state(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Ident(name) if name == "filter_state")
}

fn named(expr: &Expr) -> Option<(String, Attribute)> {
    let path = path(expr)?;
    let read = find(&path)?;
    Some((format!("attribute {path}"), Attribute::Named(read)))
}

/// `root.field` or `root['field']` as `root.field`.
fn path(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Select(SelectExpr {
            operand,
            field,
            test: false,
        }) => Some(format!("{}.{field}", root(&operand.expr)?)),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [map, key] => Some(format!("{}.{}", root(&map.expr)?, text(&key.expr)?)),
            _ => None,
        },
        _ => None,
    }
}

fn root(expr: &Expr) -> Option<&str> {
    const ROOTS: [&str; 8] = [
        "request",
        "response",
        "source",
        "destination",
        "connection",
        "upstream",
        "xds",
        "metadata",
    ];
    match expr {
        Expr::Ident(name) if ROOTS.contains(&name.as_str()) => Some(name),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

fn find(path: &str) -> Option<Read> {
    ATTRIBUTES.iter().find(|(name, _)| *name == path).map(|(_, read)| *read)
}

/// Gives `xds.node` its value.
pub(super) fn set_node(attributes: &mut [(String, Attribute)], node: &Node) {
    for (name, attribute) in attributes {
        match name.as_str() {
            "attribute xds.node" => *attribute = Attribute::Fixed(of_node(node)),
            "has xds.node" => *attribute = Attribute::Fixed(Value::Bool(true)),
            _ => {}
        }
    }
}

fn of_node(node: &Node) -> Value {
    let locality = node.locality.clone().unwrap_or_default();
    let locality = [
        ("region", string(&locality.region)),
        ("zone", string(&locality.zone)),
        ("sub_zone", string(&locality.sub_zone)),
    ];
    let fields = [
        ("id", string(&node.id)),
        ("cluster", string(&node.cluster)),
        ("user_agent_name", string(&node.user_agent_name)),
        ("locality", map(locality.into_iter())),
    ];
    let metadata = node.metadata.as_ref().map(|m| ("metadata", structure(m)));
    map(fields.into_iter().chain(metadata))
}

/// Every attribute. What is not known yet, or not there, is none.
const ATTRIBUTES: &[(&str, Read)] = &[
    ("request.path", |cx| {
        cx.request?.path.as_ref().map(|p| string(p.as_str()))
    }),
    ("request.url_path", |cx| {
        cx.request?.path.as_ref().map(|p| string(p.path()))
    }),
    ("request.query", |cx| {
        cx.request?.path.as_ref().map(|p| string(p.query().unwrap_or_default()))
    }),
    ("request.host", |cx| bytes(cx.request?.get(":authority")?.into())),
    ("request.scheme", |cx| Some(string(cx.request?.scheme.as_str()))),
    ("request.method", |cx| Some(string(cx.request?.method.as_str()))),
    ("request.headers", |cx| {
        let head = cx.request?;
        let pseudo = [":authority", ":method", ":path", ":scheme", ":protocol"];
        let pseudo = pseudo
            .into_iter()
            .filter_map(|name| Some((name, bytes(head.get(name)?.into())?)));
        Some(headers(&head.headers, pseudo))
    }),
    ("request.referer", |cx| bytes(cx.request?.get("referer")?.into())),
    ("request.useragent", |cx| bytes(cx.request?.get("user-agent")?.into())),
    ("request.id", |cx| bytes(cx.request?.get("x-request-id")?.into())),
    ("request.time", |cx| Some(timestamp(cx.stream?.start_time))),
    ("request.duration", |cx| {
        let info = cx.stream?;
        span(info.start, info.end?)
    }),
    ("request.protocol", |cx| {
        Some(string(match cx.stream?.protocol? {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        }))
    }),
    ("request.size", |cx| {
        let declared = cx.request.and_then(|head| head.get_str("content-length")?.parse().ok());
        declared
            .or_else(|| Some(cx.stream?.progress.bytes_received.get()))
            .map(int)
    }),
    ("request.total_size", |cx| {
        let info = cx.stream?;
        Some(int(info.request_header_bytes + info.progress.bytes_received.get()))
    }),
    ("response.code", |cx| {
        Some(int(cx.stream?.response_code?.as_u16().into()))
    }),
    ("response.code_details", |cx| {
        Some(string(cx.stream?.response_code_details.as_deref()?))
    }),
    ("response.flags", |cx| {
        Some(int(cx.stream?.flags.iter().map(|f| 1_u64 << f as u8).sum()))
    }),
    ("response.grpc_status", |cx| {
        let trailers = cx.stream.and_then(|s| s.response_trailers.as_ref());
        let headers = cx.response.map(|r| &r.headers);
        let mut told = trailers.into_iter().chain(headers).filter_map(|h| h.get("grpc-status"));
        told.next()?.to_str().ok()?.parse().ok().map(int)
    }),
    ("response.headers", |cx| {
        let head = cx.response?;
        let status = std::iter::once((":status", string(head.status.as_str())));
        Some(headers(&head.headers, status))
    }),
    ("response.trailers", |cx| {
        let none = HeaderMap::new();
        let trailers = cx.stream?.response_trailers.as_ref().unwrap_or(&none);
        Some(headers(trailers, std::iter::empty()))
    }),
    ("response.size", |cx| Some(int(cx.stream?.progress.bytes_sent.get()))),
    ("response.total_size", |cx| {
        let info = cx.stream?;
        Some(int(info.response_header_bytes + info.progress.bytes_sent.get()))
    }),
    ("response.backend_latency", |cx| {
        let progress = &cx.stream?.progress;
        span(progress.first_upstream_tx.get()?, progress.last_upstream_rx.get()?)
    }),
    ("source.address", |cx| Some(address(remote(cx)))),
    ("source.port", |cx| remote(cx).port().map(|p| int(p.into()))),
    ("destination.address", |cx| Some(address(&cx.connection.local_address))),
    ("destination.port", |cx| {
        cx.connection.local_address.port().map(|p| int(p.into()))
    }),
    ("connection.id", |cx| Some(Value::UInt(cx.connection.id))),
    ("connection.mtls", |cx| {
        Some(Value::Bool(
            cx.connection.tls.as_ref().is_some_and(|t| t.peer_presented),
        ))
    }),
    ("connection.requested_server_name", |cx| {
        Some(string(cx.connection.server_name.as_deref().unwrap_or_default()))
    }),
    ("connection.termination_details", |cx| {
        Some(string(cx.stream?.connection_termination_details.as_deref()?))
    }),
    ("connection.transport_failure_reason", |cx| {
        cx.connection
            .transport_failure
            .borrow()
            .as_deref()
            .filter(|r| !r.is_empty())
            .map(string)
    }),
    ("connection.tls_version", |cx| Some(string(downstream(cx)?.version))),
    ("connection.subject_local_certificate", |cx| {
        Some(string(&downstream(cx)?.local.subject))
    }),
    ("connection.subject_peer_certificate", |cx| {
        Some(string(&downstream(cx)?.peer.subject))
    }),
    ("connection.uri_san_local_certificate", |cx| {
        first(&downstream(cx)?.local, |c| &c.uri_sans)
    }),
    ("connection.uri_san_peer_certificate", |cx| {
        first(&downstream(cx)?.peer, |c| &c.uri_sans)
    }),
    ("connection.dns_san_local_certificate", |cx| {
        first(&downstream(cx)?.local, |c| &c.dns_sans)
    }),
    ("connection.dns_san_peer_certificate", |cx| {
        first(&downstream(cx)?.peer, |c| &c.dns_sans)
    }),
    ("connection.sha256_peer_certificate_digest", |cx| {
        Some(string(&downstream(cx)?.peer.sha256))
    }),
    ("upstream.address", |cx| {
        Some(address(cx.stream?.upstream.remote_address.as_ref()?))
    }),
    ("upstream.port", |cx| {
        cx.stream?
            .upstream
            .remote_address
            .as_ref()?
            .port()
            .map(|p| int(p.into()))
    }),
    ("upstream.local_address", |cx| {
        Some(address(cx.stream?.upstream.local_address.as_ref()?))
    }),
    ("upstream.transport_failure_reason", |cx| {
        Some(string(
            cx.stream?.upstream.transport_failure.as_deref().unwrap_or_default(),
        ))
    }),
    ("upstream.request_attempt_count", |cx| {
        Some(int(cx.stream?.upstream.attempts.into()))
    }),
    ("upstream.cx_pool_ready_duration", |cx| {
        duration(cx.stream?.upstream.pool_ready?)
    }),
    ("upstream.tls_version", |cx| Some(string(upstream(cx)?.version))),
    ("upstream.subject_local_certificate", |cx| {
        Some(string(&upstream(cx)?.local.subject))
    }),
    ("upstream.subject_peer_certificate", |cx| {
        Some(string(&upstream(cx)?.peer.subject))
    }),
    ("upstream.uri_san_local_certificate", |cx| {
        first(&upstream(cx)?.local, |c| &c.uri_sans)
    }),
    ("upstream.uri_san_peer_certificate", |cx| {
        first(&upstream(cx)?.peer, |c| &c.uri_sans)
    }),
    ("upstream.dns_san_local_certificate", |cx| {
        first(&upstream(cx)?.local, |c| &c.dns_sans)
    }),
    ("upstream.dns_san_peer_certificate", |cx| {
        first(&upstream(cx)?.peer, |c| &c.dns_sans)
    }),
    ("upstream.sha256_peer_certificate_digest", |cx| {
        Some(string(&upstream(cx)?.peer.sha256))
    }),
    // Given its value when an expression is configured.
    ("xds.node", |_| None),
    ("xds.cluster_name", |cx| {
        Some(string(cx.stream?.upstream.cluster.as_deref()?))
    }),
    ("xds.cluster_metadata", |cx| {
        Some(metadata(cx.stream?.upstream.cluster_metadata.as_ref()?))
    }),
    ("xds.route_name", |cx| {
        Some(string(cx.stream?.route_name.as_deref().unwrap_or_default()))
    }),
    ("xds.route_metadata", |cx| {
        let of_route = cx.stream?.route_metadata.as_ref()?;
        Some(wrapped(of_route.filter_metadata.iter()))
    }),
    ("xds.virtual_host_metadata", |cx| {
        let of_host = cx.stream?.virtual_host_metadata.as_ref()?;
        Some(wrapped(of_host.filter_metadata.iter()))
    }),
    ("xds.upstream_host_metadata", |cx| {
        let host = cx.stream?.upstream.host.as_ref()?;
        Some(metadata(&host.attributes().metadata))
    }),
    ("xds.listener_direction", |cx| {
        Some(Value::Int(i64::from(cx.connection.direction as i32)))
    }),
    ("xds.filter_chain_name", |cx| Some(string(&cx.connection.filter_chain))),
    ("metadata.filter_metadata", |cx| {
        let all: &Metadata = &cx.stream?.metadata;
        Some(map(all.iter().map(|(k, v)| (k.as_str(), structure(v)))))
    }),
];

fn downstream<'a>(cx: &MatchCx<'a>) -> Option<&'a TlsInfo> {
    cx.connection.tls.as_deref()
}

fn upstream<'a>(cx: &MatchCx<'a>) -> Option<&'a TlsInfo> {
    cx.stream?.upstream.tls.as_deref()
}

fn remote<'a>(cx: &MatchCx<'a>) -> &'a Address {
    cx.stream
        .map_or(&cx.connection.remote_address, StreamInfo::remote_address)
}

fn first(cert: &CertInfo, names: impl Fn(&CertInfo) -> &[String]) -> Option<Value> {
    Some(string(names(cert).first().map_or("", String::as_str)))
}

fn filter_state<T>(cx: &MatchCx<'_>, key: &str, read: impl Fn(&dyn FilterStateObject) -> Option<T>) -> Option<T> {
    if let Some(object) = cx.stream.and_then(|s| s.filter_state.get(key)) {
        return read(object);
    }
    let of_connection = cx.connection.filter_state.borrow();
    read(of_connection.get(key)?)
}

fn string(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

/// A text that need not be UTF-8: what is not does not compare to anything a filter says.
fn bytes(value: Cow<'_, [u8]>) -> Option<Value> {
    Some(string(&String::from_utf8_lossy(&value)))
}

fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn address(address: &Address) -> Value {
    string(&address.to_string())
}

fn duration(time: Duration) -> Option<Value> {
    chrono::Duration::from_std(time).ok().map(Value::Duration)
}

fn span(from: Instant, to: Instant) -> Option<Value> {
    duration(to.saturating_duration_since(from))
}

fn timestamp(time: SystemTime) -> Value {
    Value::Timestamp(chrono::DateTime::<chrono::Utc>::from(time).fixed_offset())
}

fn map<'a>(entries: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let map: HashMap<Key, Value> = entries.map(|(k, v)| (Key::String(Arc::new(k.to_owned())), v)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

fn headers<'a>(headers: &'a HeaderMap, more: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let joined = headers.keys().filter_map(|name| {
        let value = HeaderLookup::Header(name.clone()).of_map(headers)?;
        Some((name.as_str(), bytes(value)?))
    });
    map(more.chain(joined))
}

/// `filter_metadata` of metadata that is kept as a map.
fn metadata(all: &Metadata) -> Value {
    wrapped(all.iter())
}

fn wrapped<'a>(all: impl Iterator<Item = (&'a String, &'a Struct)>) -> Value {
    let inner = map(all.map(|(k, v)| (k.as_str(), structure(v))));
    map(std::iter::once(("filter_metadata", inner)))
}

fn structure(value: &Struct) -> Value {
    map(value.fields.iter().map(|(k, v)| (k.as_str(), plain(v))))
}

fn plain(value: &ProtoValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(n)) => Value::Float(*n),
        Some(Kind::StringValue(s)) => string(s),
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::StructValue(s)) => structure(s),
        Some(Kind::ListValue(l)) => Value::List(Arc::new(l.values.iter().map(plain).collect())),
    }
}
