//! The head of a request and of a response, apart from any codec.

use std::sync::Arc;

use bytestring::ByteString;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::{Path, Spelling};

/// The `:scheme` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request's head. Pseudo-headers are fields; `host` is kept in `authority` alone.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// `:method`
    pub method: Method,
    /// `:scheme`
    pub scheme: Scheme,
    /// `:authority`, or `host` of HTTP/1; none only before the connection manager has checked it.
    pub authority: Option<HeaderValue>,
    /// `:path` with its query; none for CONNECT.
    pub path: Option<Path>,
    /// `:protocol` of extended CONNECT (RFC 8441). An HTTP/1 upgrade keeps its `upgrade` header instead.
    pub protocol: Option<ByteString>,
    /// HTTP version as received.
    pub version: Version,
    /// All other headers, lower-case as HTTP/2 has them.
    pub headers: HeaderMap,
    /// How the client spelled them, where that is kept.
    pub spelling: Option<Arc<Spelling>>,
}

impl RequestHead {
    /// `:authority` as text; empty when missing or not ASCII text.
    pub fn host(&self) -> &str {
        self.authority
            .as_ref()
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// `:path` with its query, as text; empty for CONNECT without one.
    pub fn path(&self) -> &str {
        self.path.as_ref().map_or("", Path::as_str)
    }

    /// `:path` without its query.
    pub fn path_only(&self) -> &str {
        self.path.as_ref().map_or("", Path::path)
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.path.as_ref().and_then(Path::query)
    }

    /// A header or pseudo-header (`:method :scheme :authority :path :protocol`, and `host`) by its
    /// lower-case name; the first value when there are several.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            ":authority" | "host" => self.authority.as_ref().map(HeaderValue::as_bytes),
            ":path" => self.path.as_ref().map(|p| p.as_str().as_bytes()),
            ":method" => Some(self.method.as_str().as_bytes()),
            ":scheme" => Some(self.scheme.as_str().as_bytes()),
            ":protocol" => self.protocol.as_deref().map(str::as_bytes),
            _ => self.headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// Like [`Self::get`], as text; none when it is not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// Whether this is a gRPC request: `content-type: application/grpc`, alone or with `+` after it.
    pub fn is_grpc(&self) -> bool {
        self.headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|v| is_grpc_content_type(v.as_bytes()))
    }
}

/// `application/grpc`, `application/grpc+proto`, but not `application/grpc-web` nor, as in Envoy, `application/grpc;...`.
pub fn is_grpc_content_type(v: &[u8]) -> bool {
    v.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// `:status`
    pub status: StatusCode,
    /// HTTP version as received from upstream, or of the downstream for local replies.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// How the upstream spelled them, where that is kept.
    pub spelling: Option<Arc<Spelling>>,
}

impl ResponseHead {
    /// A head with no headers.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            spelling: None,
        }
    }

    /// A header or `:status` by its lower-case name; the first value when there are several.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            ":status" => Some(self.status.as_str().as_bytes()),
            _ => self.headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// Sets a header of constant name and value.
    pub fn set_static(&mut self, name: HeaderName, value: &'static str) {
        self.headers.insert(name, HeaderValue::from_static(value));
    }
}
