//! Request headers that the connection manager sets, trusts or removes, in Envoy's order.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    HcmConfig,
    original_ip::{self, Detected},
    referer,
    request_id::{RequestIds, X_REQUEST_ID},
    xfcc,
};
use crate::{
    http::{ConnectionInfo, LocalReply, RequestHead, Scheme, StreamInfo},
    net::Address,
};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers that only an internal caller may send: they steer the router.
const INTERNAL_ONLY: [HeaderName; 15] = [
    HeaderName::from_static("x-envoy-upstream-stream-duration-ms"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-original-url"),
];

/// Headers that tell of the caller; removed at the edge.
const EDGE_ONLY: [HeaderName; 5] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-original-host"),
];

/// Hop-by-hop headers never go on. `upgrade` and `connection` stay for an upgrade, which the router writes anew.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    // Most requests have none of them, and one walk costs less than six look-ups.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if let Some(connection) = headers.get(header::CONNECTION) {
        // Headers named by `connection` are the sender's business with us alone.
        let named: Vec<HeaderName> = connection
            .to_str()
            .unwrap_or_default()
            .split(',')
            .filter_map(|n| n.trim().parse::<HeaderName>().ok())
            .filter(|n| *n == KEEP_ALIVE || *n == header::TE && !allows_trailers(headers))
            .collect();
        for name in named {
            headers.remove(name);
        }
        if !upgrade {
            headers.remove(header::CONNECTION);
        }
    }
    if !upgrade {
        headers.remove(header::UPGRADE);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    if headers.get(header::TE).is_some_and(|te| !te.is_empty()) {
        if allows_trailers(headers) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
}

/// Whether the header is one that [`strip_hop_by_hop`] looks at.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
    )
}

fn allows_trailers(headers: &HeaderMap) -> bool {
    headers
        .get(header::TE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.split(',').any(|t| t.trim() == "trailers"))
}

/// Whether the request asks for an upgrade, by `connection: upgrade` and `upgrade`.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers
            .get(header::CONNECTION)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade")))
}

/// What the codec knows of a request besides its head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    /// The request asks for an upgrade.
    pub(super) upgrade: bool,
    /// The scheme is the client's: HTTP/1 says one only in an absolute target.
    pub(super) scheme: bool,
}

/// Sets and removes headers as the connection manager is configured; an error is the answer to a request whose client
/// cannot be told.
pub(super) fn request(
    head: &mut RequestHead,
    info: &mut StreamInfo,
    config: &HcmConfig,
    given: Given,
) -> Result<(), Box<LocalReply>> {
    strip_hop_by_hop(&mut head.headers, given.upgrade);
    head.headers.remove(X_ENVOY_INTERNAL);
    if head
        .headers
        .get(header::REFERER)
        .is_some_and(|v| !referer::is_fine(v.as_bytes()))
    {
        head.headers.remove(header::REFERER);
    }
    let connection = info.connection.clone();
    let edge = config.use_remote_address;
    let client = match config.ip_detection.as_slice() {
        [] => Client::find(head, config, &connection),
        all => {
            let detected = original_ip::detect(all, &head.headers, &connection.remote_address)?;
            Client::detected(head, detected, config, &connection)
        }
    };
    let internal = client.is_internal(config);
    forwarded(head, config, &connection, given);
    info.scheme_of_upstream = config.scheme_of_upstream;
    let remote = client.address;
    info.remote_address = Some(remote.clone());

    let any_of_envoy = |headers: &HeaderMap| headers.keys().any(|n| n.as_str().starts_with("x-envoy-"));
    if internal {
        head.headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else {
        // Twenty removals are worth a look at whether there is anything to remove.
        if any_of_envoy(&head.headers) {
            for name in &INTERNAL_ONLY {
                head.headers.remove(name);
            }
            for name in EDGE_ONLY.iter().filter(|_| edge) {
                head.headers.remove(name);
            }
        }
        if edge && let Some(value) = remote.ip().and_then(|ip| HeaderValue::from_str(&ip.to_string()).ok()) {
            head.headers.insert(X_ENVOY_EXTERNAL_ADDRESS, value);
        }
    }
    if let Some((agent, node)) = &config.user_agent {
        head.headers.insert(
            HeaderName::from_static("x-envoy-downstream-service-cluster"),
            agent.clone(),
        );
        if head.headers.get(header::USER_AGENT).is_none_or(HeaderValue::is_empty) {
            head.headers.insert(header::USER_AGENT, agent.clone());
        }
        if !node.is_empty() {
            head.headers
                .insert(HeaderName::from_static("x-envoy-downstream-service-node"), node.clone());
        }
    }
    request_id(head, info, config, edge && !internal);
    xfcc::request(head, info, config);
    if let Some(via) = &config.via {
        append(&mut head.headers, header::VIA, b", ", via);
    }
    Ok(())
}

/// `x-forwarded-proto` and `-port`, and the scheme that follows.
fn forwarded(head: &mut RequestHead, config: &HcmConfig, connection: &ConnectionInfo, given: Given) {
    // Nobody in front is trusted to have said it.
    let untrusted = config.use_remote_address && config.trusted_hops == 0;
    if untrusted || !head.headers.contains_key(X_FORWARDED_PROTO) {
        let proto = config.forward_proto.protocol(connection);
        head.headers
            .insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto.as_str()));
    }
    if config.append_x_forwarded_port
        && (untrusted || !head.headers.contains_key(X_FORWARDED_PORT))
        && let Some(port) = connection.local_address.port()
    {
        head.headers.insert(X_FORWARDED_PORT, HeaderValue::from(port));
    }
    if let Some(scheme) = config.scheme_overwrite {
        head.headers
            .insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
        head.scheme = scheme;
    } else if !given.scheme {
        head.scheme = match head.headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
            Some(v) if v.eq_ignore_ascii_case(b"https") => Scheme::Https,
            Some(v) if v.eq_ignore_ascii_case(b"http") => Scheme::Http,
            _ if connection.tls.is_some() => Scheme::Https,
            _ => Scheme::Http,
        };
    }
}

/// Who sent the request, as far as it can be trusted.
struct Client {
    address: Address,
    /// Whether the address may be an internal one: nobody but the client has had a hand in it.
    may_be_internal: bool,
}

impl Client {
    /// By `x-forwarded-for`, which gets the peer's address.
    fn find(head: &mut RequestHead, config: &HcmConfig, connection: &ConnectionInfo) -> Self {
        let peer = connection.remote_address.clone();
        let address = |ip| Address::Ip((ip, 0).into());
        if !config.use_remote_address {
            let found = forwarded_for(&head.headers, config.trusted_hops as usize);
            let xff = head.headers.get(X_FORWARDED_FOR);
            return Self {
                may_be_internal: found.is_some() && xff.is_some_and(|v| !v.as_bytes().contains(&b',')),
                address: found.map_or(peer, address),
            };
        }
        let found = match config.trusted_hops {
            0 => None,
            hops => forwarded_for(&head.headers, hops as usize - 1),
        };
        let may_be_internal = !head.headers.contains_key(X_FORWARDED_FOR);
        if !config.skip_xff_append {
            append_peer(head, config, &peer);
        }
        Self {
            may_be_internal,
            address: found.map_or(peer, address),
        }
    }

    /// By extensions.
    fn detected(head: &mut RequestHead, detected: Detected, config: &HcmConfig, connection: &ConnectionInfo) -> Self {
        let peer = connection.remote_address.clone();
        if detected.append {
            append_peer(head, config, &peer);
        }
        Self {
            may_be_internal: detected.trusted,
            address: detected.address.map_or(peer, |ip| Address::Ip((ip, 0).into())),
        }
    }

    fn is_internal(&self, config: &HcmConfig) -> bool {
        match &self.address {
            Address::Ip(a) => self.may_be_internal && config.internal_ranges.iter().any(|r| r.contains(&a.ip())),
            Address::Pipe(_) => config.internal_unix,
            Address::Internal { .. } => false,
        }
    }
}

fn append_peer(head: &mut RequestHead, config: &HcmConfig, peer: &Address) {
    // A loopback address means nothing to the next hop: Envoy gives the machine's own.
    let ip = peer.ip().filter(|ip| !ip.is_loopback()).unwrap_or(config.local_address);
    if let Ok(value) = HeaderValue::from_str(&ip.to_string()) {
        append(&mut head.headers, X_FORWARDED_FOR, b",", &value);
    }
}

/// The address `skip` places from the right of `x-forwarded-for`.
fn forwarded_for(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let all = headers.get(X_FORWARDED_FOR)?.to_str().ok()?;
    all.rsplit(',').nth(skip)?.trim().parse().ok()
}

fn request_id(head: &mut RequestHead, info: &mut StreamInfo, config: &HcmConfig, external_edge: bool) {
    let given = head.headers.get(X_REQUEST_ID).is_some_and(|v| !v.is_empty());
    let keep = given && (!external_edge || config.preserve_external_request_id);
    if config.generate_request_id && !keep {
        RequestIds::set(&mut head.headers);
    }
    info.request_id = head.headers.get(X_REQUEST_ID).cloned();
}

/// Appends to a comma-separated header.
pub(super) fn append(headers: &mut HeaderMap, name: HeaderName, delimiter: &[u8], value: &HeaderValue) {
    match headers.get(&name) {
        Some(old) if !old.is_empty() => {
            let joined = [old.as_bytes(), delimiter, value.as_bytes()].concat();
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                headers.insert(name, joined);
            }
        }
        _ => {
            headers.insert(name, value.clone());
        }
    }
}

/// Whether [`request`] found the request to be internal.
pub(super) fn is_marked_internal(headers: &HeaderMap) -> bool {
    headers.contains_key(X_ENVOY_INTERNAL)
}

/// HTTP/2 clients may send each cookie by itself; everybody else knows one header (RFC 9113, 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return;
    }
    let mut whole = Vec::new();
    for crumb in headers.get_all(header::COOKIE) {
        if !whole.is_empty() {
            whole.extend_from_slice(b"; ");
        }
        whole.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_bytes(&whole) {
        headers.insert(header::COOKIE, whole);
    }
}
