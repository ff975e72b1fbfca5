//! `tunneling_config`: the request that opens a tunnel, and what its answer leaves behind.

use std::{
    any::Any,
    borrow::Cow,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xds_protos::{
    envoy::extensions::{
        filters::network::{
            http_connection_manager::v3::RequestIdExtension, tcp_proxy::v3::tcp_proxy::TunnelingConfig as Proto,
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
    google::protobuf::{Struct, Value, value::Kind},
    prost::Name,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    formatter::{Commands, Format, FormatCx},
    http::{
        ConnectionInfo, Path, RequestHead, ResponseHead, Scheme, StreamInfo,
        hcm::RequestIds,
        stream_info::{FilterStateObject, Sharing},
    },
    net::Stream,
    route::HeaderMutations,
};

/// Filter state that turns tunneling off for a connection.
const DISABLED: &str = "envoy.tcp_proxy.disable_tunneling";
/// Filter state of the answer's headers.
pub(in super::super) const RESPONSE_HEADERS: &str = "envoy.tcp_proxy.propagate_response_headers";
/// Filter state of the trailers after the last byte.
const RESPONSE_TRAILERS: &str = "envoy.tcp_proxy.propagate_response_trailers";
/// Dynamic metadata that has the request's id.
const METADATA: &str = "envoy.filters.network.tcp_proxy";

/// How tunnels are opened.
pub(super) struct Tunneling {
    hostname: Format,
    /// None: CONNECT. The path of a POST otherwise.
    post: Option<Path>,
    headers: HeaderMutations,
    propagate_headers: bool,
    propagate_trailers: bool,
    request_id: Option<RequestIdNames>,
}

/// Where a generated id goes.
struct RequestIdNames {
    header: HeaderName,
    metadata_key: String,
}

impl Tunneling {
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                hostname, use_post, headers_to_add, propagate_response_headers, post_path,
                propagate_response_trailers, request_id_extension, request_id_header, request_id_metadata_key,
                formatters
            }
        });
        if !post_path.is_empty() && !use_post {
            return Err(cx.error("Can't set a post path when POST method isn't used"));
        }
        let commands = Commands::build(formatters, cx)?;
        let path = if post_path.is_empty() { "/".into() } else { post_path };
        let post = match Path::new(path) {
            _ if !use_post => None,
            Some(path) => Some(path),
            None => return Err(cx.error_at("post_path", "not a path")),
        };
        Ok(Self {
            hostname: cx.field("hostname", |cx| Format::parse(&hostname, cx))?,
            post,
            headers: HeaderMutations::build_additions("headers_to_add", headers_to_add, &commands, cx)?,
            propagate_headers: propagate_response_headers,
            propagate_trailers: propagate_response_trailers,
            request_id: request_ids(request_id_extension, &request_id_header, request_id_metadata_key, cx)?,
        })
    }

    /// Whether the connection is tunneled.
    pub(super) fn applies(&self, connection: &ConnectionInfo) -> bool {
        let state = connection.filter_state.borrow();
        let disabled = state.get(DISABLED).and_then(|object| object.as_text());
        disabled.as_deref() != Some("true")
    }

    /// The request; none when the name is none that can be sent.
    pub(super) fn request(&self, info: &mut StreamInfo, secure: bool) -> Option<RequestHead> {
        let mut name = Vec::new();
        let cx = FormatCx {
            request: None,
            response: None,
            info,
        };
        self.hostname.write(&mut name, &cx);
        let mut head = RequestHead {
            method: self.post.as_ref().map_or(Method::CONNECT, |_| Method::POST),
            scheme: if secure { Scheme::Https } else { Scheme::Http },
            authority: Some(HeaderValue::from_maybe_shared(bytes::Bytes::from(name)).ok()?),
            path: self.post.clone(),
            protocol: None,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            spelling: None,
        };
        self.headers.run(&mut head, info);
        if let Some(names) = &self.request_id
            && let Some(id) = RequestIds::new_id()
        {
            names.note(&id, &info.connection);
            head.headers.insert(names.header.clone(), id);
        }
        Some(head)
    }

    /// Keeps the head of the answer, also of one that refuses.
    pub(super) fn answered(&self, head: &ResponseHead, connection: &ConnectionInfo) {
        if self.propagate_headers {
            let status = Some((":status", head.status.as_str().as_bytes()));
            keep(RESPONSE_HEADERS, status, &head.headers, connection);
        }
    }

    /// Keeps the trailers.
    pub(super) fn ended(&self, trailers: &HeaderMap, connection: &ConnectionInfo) {
        if self.propagate_trailers {
            keep(RESPONSE_TRAILERS, None, trailers, connection);
        }
    }
}

impl RequestIdNames {
    fn note(&self, id: &HeaderValue, connection: &ConnectionInfo) {
        let text = id.to_str().unwrap_or_default().to_owned();
        let value = Value {
            kind: Some(Kind::StringValue(text)),
        };
        let mut metadata = connection.metadata.borrow_mut();
        let of_filter: &mut Struct = metadata.entry(METADATA.to_owned()).or_default();
        of_filter.fields.insert(self.metadata_key.clone(), value);
    }
}

fn request_ids(
    extension: Option<RequestIdExtension>,
    header: &str,
    metadata_key: String,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Option<RequestIdNames>> {
    let Some(any) = extension.and_then(|extension| extension.typed_config) else {
        return Ok(None);
    };
    cx.field("request_id_extension.typed_config", |cx| {
        let any = plain(any, cx)?;
        if any.type_name() != UuidRequestIdConfig::full_name() {
            return Err(cx.error(format!(
                "Failed to create request ID extension: INVALID_ARGUMENT: Didn't find a registered implementation for \
                 type: '{}'",
                any.type_name()
            )));
        }
        RequestIds::build(unpack(&any, cx)?, cx)
    })?;
    let header = match header {
        "" => Ok(HeaderName::from_static("x-request-id")),
        name => HeaderName::try_from(name),
    };
    Ok(Some(RequestIdNames {
        header: header.map_err(|_| cx.error_at("request_id_header", "invalid header name"))?,
        metadata_key: Some(metadata_key)
            .filter(|key| !key.is_empty())
            .unwrap_or_else(|| "tunnel_request_id".to_owned()),
    }))
}

/// Headers in filter state.
#[derive(Debug)]
pub(in super::super) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first header of this lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl FilterStateObject for Headers {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn as_json(&self) -> Option<String> {
        let headers: Vec<_> = self
            .0
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        Some(json!({ "headers": headers }).to_string())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn keep(name: &str, first: Option<(&str, &[u8])>, headers: &HeaderMap, connection: &ConnectionInfo) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let all = first.into_iter().chain(all);
    let object = Headers(all.map(|(name, value)| (name.to_owned(), text(value))).collect());
    let mut state = connection.filter_state.borrow_mut();
    state.set(name.into(), Rc::new(object), Sharing::None, false);
}

/// The bytes of a CONNECT over HTTP/1, whose end cannot be told: as in Envoy, the client's end is that of both sides.
pub(super) fn without_half_close(stream: Stream) -> Stream {
    Stream::Other(Box::pin(WithoutHalfClose { stream, shut: false }))
}

struct WithoutHalfClose {
    stream: Stream,
    shut: bool,
}

impl AsyncRead for WithoutHalfClose {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.shut {
            true => Poll::Ready(Ok(())),
            false => Pin::new(&mut self.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WithoutHalfClose {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        // What was written goes out before the end.
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}
