//! The library's request as the rest of the house sees it, or why it is refused.

use h2::ext::Protocol;
use http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts, uri::PathAndQuery};

use super::{Reset, stats::Http2CodecStats};
use crate::http::{
    RequestHead, Scheme,
    codec::{H1Options, Underscores},
    inline_headers,
};

/// Why a stream is refused before it becomes a request: it is reset, as Envoy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// More than `max_request_headers_kb`.
    TooLarge,
    /// More than `max_headers_count`.
    TooMany,
    /// `headers_with_underscores_action: REJECT_REQUEST`
    Underscore,
    /// A pseudo-header that no request has.
    InvalidField,
    /// A pseudo-header is missing, or not what the method asks for.
    Messaging,
}

impl Refused {
    /// What the log says.
    pub(super) fn reset(self) -> Reset {
        match self {
            Self::TooLarge => Reset::Remote("http2.header_list_size_too_large"),
            Self::TooMany => Reset::Remote("http2.too_many_headers"),
            Self::Underscore => Reset::Remote("http2.unexpected_underscore"),
            Self::InvalidField => Reset::Protocol("http2.invalid.header.field"),
            Self::Messaging => Reset::Protocol("http2.violation.of.messaging.rule"),
        }
    }

    /// The message is none: what ends its connection unless that is asked not to.
    pub(super) fn is_malformed(self) -> bool {
        matches!(self, Self::InvalidField | Self::Messaging)
    }

    pub(super) fn count(self, stats: &Http2CodecStats) {
        match self {
            Self::TooLarge => stats.header_list_size_too_large.inc(),
            Self::TooMany => stats.header_overflow.inc(),
            Self::Underscore => stats.requests_rejected_with_underscores_in_headers.inc(),
            Self::InvalidField | Self::Messaging => stats.rx_messaging_error.inc(),
        }
    }
}

/// A head, and what was found while it was read.
pub(super) struct Read {
    pub(super) head: RequestHead,
    /// Bytes of its names and values.
    pub(super) bytes: u64,
    /// Headers left out because of their underscores.
    pub(super) dropped: u64,
    /// Extended CONNECT, which is an upgrade to everyone else.
    pub(super) extended: bool,
}

/// What the library takes before Envoy's limit is looked at: a larger list ends the connection.
pub fn library_limit(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_mul(2).saturating_add(512 * 1024)).unwrap_or(u32::MAX)
}

/// Reads a head under the limits of the connection manager.
pub(super) fn read(parts: Parts, scheme: Scheme, options: &H1Options) -> Result<Read, Refused> {
    let Parts {
        method,
        uri,
        mut headers,
        extensions,
        ..
    } = parts;
    let uri = uri.into_parts();
    // Four pseudo-headers come with most requests.
    let pseudo = [
        method.as_str().len() + 7,
        uri.scheme.as_ref().map_or(4, |s| s.as_str().len()) + 7,
        uri.authority.as_ref().map_or(0, |a| a.as_str().len() + 10),
        uri.path_and_query.as_ref().map_or(0, |p| p.as_str().len() + 5),
    ];
    let bytes = size(&headers) + pseudo.iter().sum::<usize>();
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Refused::InvalidField);
    }
    let dropped = limits(&mut headers, bytes, pseudo.iter().filter(|n| **n > 0).count(), options)?;
    let host = headers.remove(header::HOST);
    let authority = match uri.authority {
        // Its own header wins over `host`.
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => host,
    };
    check(&method, uri.path_and_query.as_ref(), authority.as_ref())?;
    let scheme = match uri.scheme.as_ref().map(http::uri::Scheme::as_str) {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => scheme,
    };
    let mut head = RequestHead {
        method,
        scheme,
        authority,
        path: uri.path_and_query.map(Into::into),
        protocol: None,
        version: Version::HTTP_2,
        headers,
        spelling: None,
    };
    let extended = match extensions.get::<Protocol>() {
        Some(protocol) => to_upgrade(&mut head, protocol),
        None => false,
    };
    Ok(Read {
        head,
        bytes: bytes as u64,
        dropped,
        extended,
    })
}

/// What the library lets pass, and Envoy does not.
fn check(method: &Method, path: Option<&PathAndQuery>, authority: Option<&HeaderValue>) -> Result<(), Refused> {
    let Some(authority) = authority else {
        return Err(Refused::Messaging);
    };
    // No user information.
    if authority.is_empty() || authority.as_bytes().contains(&b'@') {
        return Err(Refused::InvalidField);
    }
    match path.map(|p| p.as_str().as_bytes()) {
        None => Ok(()),
        Some([b'/', ..]) => Ok(()),
        Some(b"*") if *method == Method::OPTIONS => Ok(()),
        Some(_) => Err(Refused::Messaging),
    }
}

/// Extended CONNECT (RFC 8441) becomes what HTTP/1 has for it, so that routes and filters know one kind of upgrade.
fn to_upgrade(head: &mut RequestHead, protocol: &Protocol) -> bool {
    let Ok(protocol) = HeaderValue::from_str(protocol.as_str()) else {
        return false;
    };
    head.method = Method::GET;
    head.headers.insert(header::UPGRADE, protocol);
    head.headers
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    true
}

/// Holds headers or trailers to the limits; returns how many were dropped. `bytes` is their size, `pseudo` the number
/// of those that are not in the map.
fn limits(headers: &mut HeaderMap, bytes: usize, pseudo: usize, options: &H1Options) -> Result<u64, Refused> {
    if bytes > options.max_header_bytes {
        return Err(Refused::TooLarge);
    }
    let mut count = headers.len() + pseudo;
    if count > options.max_headers {
        // Those that will be joined are one.
        count = inline_headers::count_in_request(headers) + pseudo;
    }
    if count > options.max_headers {
        return Err(Refused::TooMany);
    }
    match options.underscores {
        Underscores::Allow => Ok(0),
        action => underscores(headers, action),
    }
}

/// Holds trailers to the limits of headers; returns how many were dropped.
pub(super) fn trailers(trailers: &mut HeaderMap, options: &H1Options) -> Result<u64, Refused> {
    limits(trailers, size(trailers), 0, options)
}

/// Refuses or drops headers with underscores; returns how many were dropped.
fn underscores(headers: &mut HeaderMap, action: Underscores) -> Result<u64, Refused> {
    let named: Vec<_> = headers.keys().filter(|n| n.as_str().contains('_')).cloned().collect();
    if !named.is_empty() && action == Underscores::Reject {
        return Err(Refused::Underscore);
    }
    let before = headers.len();
    for name in named {
        headers.remove(name);
    }
    Ok((before - headers.len()) as u64)
}

/// Bytes of names and values.
pub fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}
