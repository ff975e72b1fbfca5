//! The PROXY protocol's wire format, both versions: what a proxy in front says of its client, and what is said to an
//! upstream (<https://www.haproxy.org/download/2.1/doc/proxy-protocol.txt>).

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::Bytes;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Most bytes of a version 1 line, as Envoy reads it.
const V1_LINE: usize = 108;

/// How far the end of such a line is looked for.
const V1_SEARCHED: usize = 232;

/// Signature, command, family and length of version 2.
const V2_HEADER: usize = 16;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A header as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its version.
    pub version: ProxyVersion,
    /// Bytes of the whole header.
    pub length: usize,
    /// The client and where it connected to; none for a connection of the proxy itself.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Type and value of what else was said (version 2).
    pub tlvs: Vec<(u8, Bytes)>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyStart {
    /// Too few to tell. The version, when the signature is there.
    Incomplete(Option<ProxyVersion>),
    /// Not of this protocol.
    Absent,
    /// A line that does not end where one of version 1 must.
    Endless,
    /// A signature, and nothing right behind it.
    Malformed(ProxyVersion),
    /// A header.
    Header(ProxyHeader),
}

/// Looks at the first bytes of a connection for a header of one of `versions`. Where one is required, bytes that are
/// none are only told apart once a header of version 2 could have begun, or a line has ended.
pub fn parse(bytes: &[u8], versions: &[ProxyVersion], required: bool) -> ProxyStart {
    let may_be = |version, signature: &[u8]| {
        let seen = bytes.len().min(signature.len());
        versions.contains(&version) && bytes.get(..seen) == signature.get(..seen)
    };
    if may_be(ProxyVersion::V2, V2_SIGNATURE) {
        return match bytes.len() < V2_SIGNATURE.len() {
            true => ProxyStart::Incomplete(None),
            false => v2(bytes),
        };
    }
    match may_be(ProxyVersion::V1, V1_SIGNATURE) {
        true if bytes.len() < V1_SIGNATURE.len() => ProxyStart::Incomplete(None),
        true => v1(bytes),
        false if !required || bytes.len() >= V2_HEADER => ProxyStart::Absent,
        false => v1(bytes),
    }
}

fn v1(bytes: &[u8]) -> ProxyStart {
    let line = bytes.get(..V1_SEARCHED).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|w| w == b"\r\n") else {
        return match bytes.len() <= V1_LINE {
            true => ProxyStart::Incomplete(Some(ProxyVersion::V1)),
            false => ProxyStart::Endless,
        };
    };
    if end + 2 > V1_LINE {
        return ProxyStart::Malformed(ProxyVersion::V1);
    }
    let header = |addresses| {
        ProxyStart::Header(ProxyHeader {
            version: ProxyVersion::V1,
            length: end + 2,
            addresses,
            tlvs: Vec::new(),
        })
    };
    let words = line
        .get(..end)
        .and_then(|l| std::str::from_utf8(l).ok())
        .unwrap_or_default();
    let words: Vec<&str> = words.trim_end().split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => header(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().ok()?;
                let right = ip.is_ipv4() == (*family == "TCP4") && is_unicast(ip);
                right.then_some(SocketAddr::new(ip, port.parse().ok()?))
            };
            match (address(from, from_port), address(to, to_port)) {
                (Some(from), Some(to)) => header(Some((from, to))),
                _ => ProxyStart::Malformed(ProxyVersion::V1),
            }
        }
        _ => ProxyStart::Malformed(ProxyVersion::V1),
    }
}

fn v2(bytes: &[u8]) -> ProxyStart {
    let malformed = ProxyStart::Malformed(ProxyVersion::V2);
    let &[.., command, family, high, low] = bytes.get(..V2_HEADER).unwrap_or_default() else {
        return ProxyStart::Incomplete(Some(ProxyVersion::V2));
    };
    let rest_length = usize::from(u16::from_be_bytes([high, low]));
    // LOCAL: whatever stands there is not meant for us.
    let local = command == 0x20;
    let address_length = match family >> 4 {
        _ if local => 0,
        1 => 12,
        2 => 36,
        _ => return malformed,
    };
    if command >> 4 != 2 || rest_length < address_length {
        return malformed;
    }
    // Envoy looks at these once it has the addresses.
    let known = local || (command == 0x21 && matches!(family & 0x0f, 1 | 2));
    if bytes.len() >= V2_HEADER + address_length && !known {
        return malformed;
    }
    let Some(rest) = bytes.get(V2_HEADER..V2_HEADER + rest_length) else {
        return ProxyStart::Incomplete(Some(ProxyVersion::V2));
    };
    let (addresses, tlvs) = match address_length {
        0 => (None, Some(Vec::new())),
        length => {
            let (addresses, tlvs) = rest.split_at(length);
            let Some(found) = v2_addresses(addresses) else {
                return malformed;
            };
            (Some(found), read_tlvs(tlvs))
        }
    };
    match tlvs {
        None => malformed,
        Some(tlvs) => ProxyStart::Header(ProxyHeader {
            version: ProxyVersion::V2,
            length: V2_HEADER + rest_length,
            addresses,
            tlvs,
        }),
    }
}

fn v2_addresses(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let width = if bytes.len() == 12 { 4 } else { 16 };
    let ip = |bytes: &[u8]| match width {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
    };
    let (from, to) = (ip(bytes.get(..width)?)?, ip(bytes.get(width..2 * width)?)?);
    let &[a, b, c, d] = bytes.get(2 * width..)? else {
        return None;
    };
    let port = u16::from_be_bytes;
    (is_unicast(from) && is_unicast(to))
        .then(|| (SocketAddr::new(from, port([a, b])), SocketAddr::new(to, port([c, d]))))
}

/// None when a length reaches past the end.
fn read_tlvs(mut bytes: &[u8]) -> Option<Vec<(u8, Bytes)>> {
    let mut tlvs = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        tlvs.push((*kind, Bytes::copy_from_slice(rest.get(..length)?)));
        bytes = rest.get(length..)?;
    }
    bytes.is_empty().then_some(tlvs)
}

/// Neither multicast, nor broadcast, nor unspecified.
fn is_unicast(ip: IpAddr) -> bool {
    !ip.is_multicast() && !ip.is_unspecified() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// The header of version 1 for a connection; without addresses it says that they are unknown.
pub fn write_v1(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut line = String::from("PROXY ");
    // Writing to a String cannot fail.
    let _ = match same_family(addresses) {
        Some((from, to)) => write!(
            line,
            "{} {} {} {} {}",
            if from.is_ipv4() { "TCP4" } else { "TCP6" },
            from.ip(),
            to.ip(),
            from.port(),
            to.port()
        ),
        None => write!(line, "UNKNOWN"),
    };
    line.push_str("\r\n");
    line.into_bytes()
}

/// The header of version 2 for a connection; without addresses it is one of the proxy itself. TLVs for which its 64 KB
/// have no room are left out.
pub fn write_v2<'a>(
    addresses: Option<(SocketAddr, SocketAddr)>,
    tlvs: impl Iterator<Item = (u8, &'a [u8])>,
) -> Vec<u8> {
    let mut out = V2_SIGNATURE.to_vec();
    let Some((from, to)) = same_family(addresses) else {
        out.extend([0x20, 0, 0, 0]);
        return out;
    };
    out.extend([0x21, if from.is_ipv4() { 0x11 } else { 0x21 }, 0, 0]);
    for address in [from, to] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    }
    out.extend(from.port().to_be_bytes());
    out.extend(to.port().to_be_bytes());
    for (kind, value) in tlvs {
        let length = u16::try_from(value.len()).ok();
        if let Some(length) = length.filter(|_| out.len() - V2_HEADER + 3 + value.len() <= usize::from(u16::MAX)) {
            out.push(kind);
            out.extend(length.to_be_bytes());
            out.extend(value);
        }
    }
    let length = u16::try_from(out.len() - V2_HEADER).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(V2_HEADER - 2..V2_HEADER) {
        place.copy_from_slice(&length);
    }
    out
}

/// Addresses of different families cannot be said: an IPv4 one is written as IPv6 then.
fn same_family(addresses: Option<(SocketAddr, SocketAddr)>) -> Option<(SocketAddr, SocketAddr)> {
    let (from, to) = addresses?;
    let mapped = |a: SocketAddr| match a.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), a.port()),
        IpAddr::V6(_) => a,
    };
    Some(match from.is_ipv4() == to.is_ipv4() {
        true => (from, to),
        false => (mapped(from), mapped(to)),
    })
}

#[cfg(test)]
mod tests;
