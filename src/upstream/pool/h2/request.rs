//! A request as HTTP/2 has it: the URI carries the pseudo-headers.

use h2::ext::Protocol;
use http::{HeaderValue, Method, Request, Uri, Version, header, uri};

use crate::{
    http::{Path, RequestHead, Scheme},
    upstream::pool::core::Pool,
};

/// What the request asks to be upgraded to.
pub(super) fn upgrade_of(head: &RequestHead) -> Option<HeaderValue> {
    if let Some(protocol) = &head.protocol {
        return HeaderValue::from_str(protocol).ok();
    }
    let upgrade = head.headers.get(header::UPGRADE)?;
    let connection = head.headers.get(header::CONNECTION)?.as_bytes();
    let asks = connection
        .split(|b| *b == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    asks.then(|| upgrade.clone())
}

/// The library's request. An upgrade becomes extended CONNECT (RFC 8441).
pub(super) fn of(mut head: RequestHead, upgrade: Option<&HeaderValue>, pool: &Pool) -> Request<()> {
    let mut parts = uri::Parts::default();
    let authority = head.authority.as_ref().and_then(|a| pool.authority(a));
    match (authority, head.authority.take()) {
        (Some(authority), _) => parts.authority = Some(authority),
        // What is no URI authority can still be sent as a header.
        (None, Some(value)) => {
            head.headers.insert(header::HOST, value);
        }
        (None, None) => {}
    }
    if upgrade.is_some() || head.method != Method::CONNECT {
        parts.path_and_query = head.path.as_ref().and_then(Path::to_uri);
    }
    if parts.authority.is_some() && parts.path_and_query.is_some() {
        parts.scheme = Some(match head.scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers;
    if let Some(protocol) = upgrade {
        *request.method_mut() = Method::CONNECT;
        if let Ok(protocol) = protocol.to_str() {
            request.extensions_mut().insert(Protocol::from(protocol));
        }
        request.headers_mut().remove(header::UPGRADE);
        request.headers_mut().remove(header::CONNECTION);
        request.headers_mut().remove(header::CONTENT_LENGTH);
    }
    request
}
