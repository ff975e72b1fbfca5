//! How the facts of a stream become text: what the commands without arguments are made of.

use std::{io::Write, net::SocketAddr, sync::Arc};

use http::{HeaderMap, Version};
use ipnet::IpNet;

use super::{
    FormatCx,
    command::{Kind, number, put},
};
use crate::{
    http::stream_info::{CertInfo, TlsInfo},
    net::Address,
    upstream::Host,
};

/// Names of the pseudo-headers, as `REQUEST_HEADERS_BYTES` counts them.
pub(super) const PSEUDO_NAMES: u64 = (":method".len() + ":path".len() + ":authority".len() + ":scheme".len()) as u64;
/// `:status` and its three digits.
pub(super) const STATUS_BYTES: u64 = (":status".len() + 3) as u64;

/// Why this side closed the connection; one that was cut from outside knows it by itself. Envoy knows that once the
/// requests are over.
pub(super) fn local_close<'a>(cx: &FormatCx<'a>) -> Option<&'a str> {
    let cut = cx.info.connection.local_close.get().filter(|_| cx.request.is_none());
    cut.or(cx.info.close.local_reason.as_deref())
}

/// Every host tried, the last one last.
pub(super) fn attempted<'a>(cx: &FormatCx<'a>) -> impl Iterator<Item = &'a Arc<Host>> {
    let upstream = &cx.info.upstream;
    let last = upstream.host.as_ref().filter(|_| upstream.connected);
    upstream.earlier_hosts.iter().chain(last)
}

/// A fact that is not known here.
pub(super) fn missing(_: &FormatCx<'_>, _: &mut Vec<u8>) -> Option<Kind> {
    None
}

pub(super) fn count(out: &mut Vec<u8>, n: u64) -> Option<Kind> {
    number(out, u128::from(n))
}

/// A text; an empty one is missing.
pub(super) fn text(out: &mut Vec<u8>, value: Option<&str>) -> Option<Kind> {
    put(out, value.filter(|v| !v.is_empty())?.as_bytes())
}

pub(super) fn since(
    out: &mut Vec<u8>,
    start: Option<std::time::Instant>,
    end: Option<std::time::Instant>,
) -> Option<Kind> {
    number(out, end?.saturating_duration_since(start?).as_millis())
}

pub(super) fn join(out: &mut Vec<u8>, values: impl Iterator<Item = impl AsRef<str>>) -> Option<Kind> {
    for (i, value) in values.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(value.as_ref().as_bytes());
    }
    Some(Kind::Text)
}

/// Values joined by commas; missing when there are none.
pub(super) fn joined(out: &mut Vec<u8>, values: impl Iterator<Item = impl AsRef<str>>) -> Option<Kind> {
    let start = out.len();
    join(out, values);
    (out.len() > start).then_some(Kind::Text)
}

pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 | Version::HTTP_09 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

pub(super) fn header_bytes(headers: &HeaderMap) -> u64 {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().len() + value.len()) as u64)
        .sum()
}

pub(super) fn address(out: &mut Vec<u8>, address: &Address) -> Option<Kind> {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{address}");
    Some(Kind::Text)
}

pub(super) fn plain_ip(address: &Address) -> String {
    match address {
        Address::Ip(SocketAddr::V4(a)) => a.ip().to_string(),
        Address::Ip(SocketAddr::V6(a)) => a.ip().to_string(),
        other => other.to_string(),
    }
}

pub(super) fn without_port(out: &mut Vec<u8>, address: &Address) -> Option<Kind> {
    // Writing to a Vec cannot fail.
    let _ = match address.ip() {
        Some(ip) => write!(out, "{ip}"),
        None => write!(out, "{address}"),
    };
    Some(Kind::Text)
}

/// The network of so many bits that an address is in: more than it has are all of them, fewer than none are an error,
/// which is written as nothing.
pub(super) fn masked(out: &mut Vec<u8>, address: &Address, bits: i64) -> Option<Kind> {
    let Some(ip) = address.ip() else {
        return without_port(out, address);
    };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let Ok(bits) = u8::try_from(bits.min(most)) else {
        return put(out, b"");
    };
    if let Ok(network) = IpNet::new(ip, bits) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{}", network.trunc());
    }
    Some(Kind::Text)
}

pub(super) fn port(out: &mut Vec<u8>, address: &Address) -> Option<Kind> {
    count(out, u64::from(address.port()?))
}

pub(super) fn endpoint(out: &mut Vec<u8>, address: &Address) -> Option<Kind> {
    match address {
        Address::Internal { endpoint, .. } => put(out, endpoint.as_bytes()),
        Address::Ip(_) | Address::Pipe(_) => put(out, b""),
    }
}

pub(super) fn name_of(host: &Host) -> String {
    if host.hostname.is_empty() {
        host.address.to_string()
    } else {
        host.hostname.to_string()
    }
}

pub(super) fn host_name(out: &mut Vec<u8>, host: &Host) -> Option<Kind> {
    match &*host.hostname {
        "" => address(out, &host.address),
        name => put(out, name.as_bytes()),
    }
}

/// Cuts a port off the text that begins at `start`.
pub(super) fn strip_port(start: usize, out: &mut Vec<u8>) {
    let text = &out[start..];
    let colon = text.iter().rposition(|b| *b == b':');
    let bracket = text.iter().rposition(|b| *b == b']');
    if let Some(colon) = colon.filter(|colon| bracket.is_none_or(|b| b < *colon)) {
        out.truncate(start + colon);
    }
}

pub(super) fn reason(out: &mut Vec<u8>, value: Option<&str>) -> Option<Kind> {
    let start = out.len();
    let kind = text(out, value);
    underscores(&mut out[start..]);
    kind
}

/// White space becomes underscores, so that a value stays one word of a log line.
pub(super) fn underscores(text: &mut [u8]) {
    for b in text.iter_mut().filter(|b| b.is_ascii_whitespace()) {
        *b = b'_';
    }
}

pub(super) fn downstream<'a>(cx: &FormatCx<'a>) -> Option<&'a TlsInfo> {
    cx.info.connection.tls.as_deref()
}

pub(super) fn upstream<'a>(cx: &FormatCx<'a>) -> Option<&'a TlsInfo> {
    cx.info.upstream.tls.as_deref()
}

pub(super) fn tls<'a>(
    out: &mut Vec<u8>,
    tls: Option<&'a TlsInfo>,
    field: impl Fn(&'a TlsInfo) -> &'a str,
) -> Option<Kind> {
    text(out, tls.map(field))
}

pub(super) fn sans(out: &mut Vec<u8>, cert: &CertInfo, field: impl Fn(&CertInfo) -> &Vec<String>) -> Option<Kind> {
    joined(out, field(cert).iter())
}
