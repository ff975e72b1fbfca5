//! Headers that `connection` names: they are between the client and us, and go no further (RFC 9110, 7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::CodecError;

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
    let left: Vec<&[u8]> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter(|t| !t.eq_ignore_ascii_case(b"upgrade") && !t.eq_ignore_ascii_case(b"http2-settings"))
        .collect();
    match HeaderValue::from_bytes(&left.join(&b','.to_owned())) {
        Ok(value) if !value.is_empty() => drop(headers.insert(header::CONNECTION, value)),
        _ => drop(headers.remove(header::CONNECTION)),
    }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|t| !t.is_empty())
}
