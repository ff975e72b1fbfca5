//! The request target: path, URL, authority or `*`.

use bytes::Bytes;
use http::{HeaderValue, Method};

use super::CodecError;
use crate::http::{Path, Scheme};

/// A target, taken apart.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) scheme: Option<Scheme>,
    /// Of an absolute target or of CONNECT, without user information.
    pub(super) authority: Option<HeaderValue>,
    /// None for CONNECT.
    pub(super) path: Option<Path>,
}

/// The grammar that Envoy's parser asks for, before it knows what the target means.
pub(super) fn check(target: &[u8], connect: bool) -> Result<(), CodecError> {
    let fine = |ok: bool| if ok { Ok(()) } else { Err(CodecError::Syntax) };
    if let [b'/' | b'*', ..] = target {
        return fine(is_path(target));
    }
    let rest = match connect {
        true => target,
        false => split_scheme(target).ok_or(CodecError::Syntax)?.1,
    };
    let (authority, path) = split_authority(rest);
    fine(is_authority(authority) && !authority.windows(2).any(|w| w == b"@@") && is_path(path))
}

/// Takes a target apart that [`check`] let through; `absolute_urls` when absolute ones are understood, or else left whole.
pub(super) fn parse(target: Bytes, method: &Method, absolute_urls: bool) -> Result<Target, CodecError> {
    if *method == Method::CONNECT {
        let authority = value(host_and_port(&target).filter(|a| a.len() == target.len()))?;
        if port(&target).is_none() {
            return Err(CodecError::InvalidUrl);
        }
        return Ok(Target {
            authority: Some(authority),
            ..Target::default()
        });
    }
    match &*target {
        [b'/', ..] => path(target),
        b"*" if *method == Method::OPTIONS => Ok(Target {
            path: Some(Path::from_static("*")),
            ..Target::default()
        }),
        [b'*', ..] => Err(CodecError::InvalidUrl),
        _ if !absolute_urls => path(target),
        _ => absolute(&target),
    }
}

/// Characters of a host as Envoy takes them: RFC 3986's, in any order.
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@[]".contains(b))
}

fn absolute(target: &Bytes) -> Result<Target, CodecError> {
    let (scheme, rest) = split_scheme(target).ok_or(CodecError::InvalidUrl)?;
    let (authority, rest) = split_authority(rest);
    let authority = value(host_and_port(authority))?;
    let scheme = match scheme {
        s if s.eq_ignore_ascii_case(b"http") => Scheme::Http,
        s if s.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => return Err(CodecError::InvalidScheme),
    };
    let parsed = match rest {
        [] => path(Bytes::from_static(b"/"))?,
        [b'/', ..] => path(target.slice_ref(rest))?,
        // A query without a path is no path that a route could match.
        _ => return Err(CodecError::InvalidUrl),
    };
    Ok(Target {
        scheme: Some(scheme),
        authority: Some(authority),
        ..parsed
    })
}

fn path(bytes: Bytes) -> Result<Target, CodecError> {
    Ok(Target {
        path: Some(Path::new(bytes).ok_or(CodecError::InvalidUrl)?),
        ..Target::default()
    })
}

fn value(authority: Option<&[u8]>) -> Result<HeaderValue, CodecError> {
    authority
        .and_then(|a| HeaderValue::from_bytes(a).ok())
        .ok_or(CodecError::InvalidUrl)
}

fn is_path(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, b'!'..=b'~'))
}

fn split_scheme(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = target
        .iter()
        .position(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'+' | b'-' | b'.'))?;
    let (scheme, rest) = target.split_at_checked(end)?;
    scheme.first().filter(|b| b.is_ascii_alphabetic())?;
    Some((scheme, rest.strip_prefix(b"://")?))
}

fn split_authority(rest: &[u8]) -> (&[u8], &[u8]) {
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    rest.split_at(end)
}

/// The host and port of a URL's authority, when both are fine; user information is left out.
fn host_and_port(authority: &[u8]) -> Option<&[u8]> {
    let at = authority.iter().rposition(|b| *b == b'@').map_or(0, |i| i + 1);
    let authority = authority.get(at..)?;
    let (host, rest) = match authority {
        [b'[', inner @ ..] => {
            let end = inner.iter().position(|b| *b == b']')?;
            let (address, rest) = inner.split_at_checked(end)?;
            std::str::from_utf8(address).ok()?.parse::<std::net::Ipv6Addr>().ok()?;
            (address, rest.get(1..)?)
        }
        _ => {
            let end = authority.iter().position(|b| *b == b':').unwrap_or(authority.len());
            let (host, rest) = authority.split_at_checked(end)?;
            let fine = host
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
            (fine.then_some(host)?, rest)
        }
    };
    let fine = !host.is_empty() && (rest.is_empty() || port(rest).is_some());
    fine.then_some(authority)
}

/// The number after the last colon.
fn port(authority: &[u8]) -> Option<u16> {
    let colon = authority.iter().rposition(|b| *b == b':')?;
    let digits = authority.get(colon + 1..)?;
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}
