//! A request's head on the wire, and how the end of its body is told: as Envoy's codec decides.

use http::{Method, header};

use super::ClientOptions;
use crate::http::{
    RequestHead,
    codec::http1::encode::{Case, Framing, field},
};

/// Writes a head; returns how the body is to be written. `end`: no body follows. None when the head cannot be written
/// as a request line.
pub(super) fn head(out: &mut Vec<u8>, head: &RequestHead, end: bool, options: &ClientOptions) -> Option<Framing> {
    let connect = head.method == Method::CONNECT;
    // Extended CONNECT is an upgrade here (RFC 8441, 5).
    let upgrade = head.protocol.as_ref().filter(|_| connect);
    let authority = head
        .authority
        .as_ref()
        .map(http::HeaderValue::as_bytes)
        .unwrap_or_default();
    if authority.iter().any(|b| *b <= b' ') {
        return None;
    }
    let method = if upgrade.is_some() { &Method::GET } else { &head.method };
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    match &head.path {
        _ if connect && upgrade.is_none() => out.extend_from_slice(authority),
        Some(path) => {
            if options.absolute_url && !authority.is_empty() {
                out.extend_from_slice(head.scheme.as_str().as_bytes());
                out.extend_from_slice(b"://");
                out.extend_from_slice(authority);
            }
            out.extend_from_slice(path.as_str().as_bytes());
        }
        None => out.push(b'/'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let case = Case::of(head.spelling.as_deref(), options.limits.case);
    if head.authority.is_some() {
        field(out, &header::HOST, authority, case);
    }
    let (mut length, mut upgrades) = (None, upgrade.is_some());
    for (name, value) in &head.headers {
        if *name == header::CONTENT_LENGTH {
            let Some(n) = value.to_str().ok().and_then(|v| v.trim().parse().ok()) else {
                continue;
            };
            if length.replace(n).is_some_and(|first: u64| first != n) {
                return None;
            }
        } else if *name == header::TRANSFER_ENCODING || *name == header::HOST && head.authority.is_some() {
            continue;
        } else if *name == header::UPGRADE {
            upgrades = true;
        }
        field(out, name, value.as_bytes(), case);
    }
    if let Some(protocol) = upgrade {
        field(out, &header::CONNECTION, b"upgrade", case);
        field(out, &header::UPGRADE, protocol.as_bytes(), case);
    }
    let bodiless = matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
    );
    let framing = match length {
        _ if connect => Framing::Bodiless,
        // What follows is written once the upstream has agreed.
        _ if upgrades => Framing::Bodiless,
        Some(length) => Framing::Length(length),
        None if end => {
            if !bodiless {
                field(out, &header::CONTENT_LENGTH, b"0", case);
            }
            Framing::Length(0)
        }
        None => {
            field(out, &header::TRANSFER_ENCODING, b"chunked", case);
            Framing::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    Some(framing)
}
