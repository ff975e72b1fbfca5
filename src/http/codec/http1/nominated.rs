//! Headers that `connection` names: they are between the client and us, and go no further (RFC 9110, 7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::CodecError;
use crate::matching::StringMatcher;

/// So many names are a sign of somebody looking for a hole.
const MOST: usize = 9;

/// A `te` longer than this is not looked into.
const LONGEST_TE: usize = 255;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes what `connection` names, as Envoy does. Forwarding headers must not be taken away like that.
pub(super) fn sanitize(headers: &mut HeaderMap, host: &mut Option<HeaderValue>) -> Result<(), CodecError> {
    let mut named: Vec<HeaderName> = Vec::new();
    let mut count = 0;
    for token in headers.get_all(header::CONNECTION).iter().flat_map(tokens) {
        count += 1;
        if count > MOST || token.starts_with(b":") {
            return Err(CodecError::ConnectionHeader);
        }
        match token.to_ascii_lowercase().as_slice() {
            b"close" | b"keep-alive" | b"upgrade" | b"http2-settings" | b"connection" => {}
            b"x-forwarded-for" | b"x-forwarded-host" | b"x-forwarded-proto" => {
                return Err(CodecError::ConnectionHeader);
            }
            // What is no name names nothing.
            other => named.extend(HeaderName::from_bytes(other)),
        }
    }
    for name in named {
        if name == header::HOST {
            *host = None;
        } else if name == header::TE {
            keep_trailers(headers)?;
        } else {
            headers.remove(name);
        }
    }
    Ok(())
}

/// Leaves `trailers` of `te`, if it is there.
fn keep_trailers(headers: &mut HeaderMap) -> Result<(), CodecError> {
    let Some(te) = headers.get(header::TE) else {
        return Ok(());
    };
    if te.len() > LONGEST_TE {
        return Err(CodecError::ConnectionHeader);
    }
    if tokens(te).any(|t| t.eq_ignore_ascii_case(b"trailers")) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
    Ok(())
}

/// HTTP/2 by upgrade is not offered: the request goes on as if it had not asked.
pub(super) fn remove_h2c(headers: &mut HeaderMap) {
    headers.remove(header::UPGRADE);
    headers.remove(HTTP2_SETTINGS);
    keep_tokens(headers, &header::CONNECTION, |t| {
        !t.eq_ignore_ascii_case(b"upgrade") && !t.eq_ignore_ascii_case(b"http2-settings")
    });
}

/// `ignore_http_11_upgrade`: the request goes on as if it had not asked for those that match.
pub(super) fn remove_ignored(headers: &mut HeaderMap, ignored: &[StringMatcher]) {
    keep_tokens(headers, &header::UPGRADE, |t| !ignored.iter().any(|m| m.matches(t)));
    if !headers.contains_key(header::UPGRADE) {
        keep_tokens(headers, &header::CONNECTION, |t| !t.eq_ignore_ascii_case(b"upgrade"));
    }
}

/// Leaves the tokens of a header that are to be kept, and no header without one.
fn keep_tokens(headers: &mut HeaderMap, name: &HeaderName, keep: impl Fn(&[u8]) -> bool) {
    let kept: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .flat_map(tokens)
        .filter(|t| keep(t))
        .collect();
    match HeaderValue::from_bytes(&kept.join(&b','.to_owned())) {
        Ok(value) if !value.is_empty() => drop(headers.insert(name, value)),
        _ => drop(headers.remove(name)),
    }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|t| !t.is_empty())
}
