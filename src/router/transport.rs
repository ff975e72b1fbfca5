//! What a request asks of the upstream connection's transport socket: `auto_sni`, `auto_san_validation`, and the
//! names that filters left in filter state.
//!
//! Requests that ask for different things never share a connection: the pool is keyed by these options.

use std::{net::IpAddr, sync::Arc};

use crate::{
    http::{RequestHead, StreamInfo},
    upstream::{TransportOptions, config::HttpOptions},
};

/// The options of a request whose headers are final; none in the usual case. What filters have set comes first,
/// as in Envoy, then what the cluster takes from the request's host.
pub(super) fn options(protocol: &HttpOptions, head: &RequestHead, info: &StreamInfo) -> Option<Arc<TransportOptions>> {
    let mut options = TransportOptions::of_filter_state(info);
    if protocol.auto_sni || protocol.auto_san_validation {
        let host: Arc<str> = host_of(protocol, head).into();
        let is_name = !host.is_empty() && host.parse::<IpAddr>().is_err();
        if protocol.auto_sni && is_name && options.sni.is_none() {
            options.sni = Some(host.clone());
        }
        if protocol.auto_san_validation && options.verify_sans.is_empty() {
            // Also when it is empty: a request without a host must not be sent to whoever answers.
            options.verify_sans.push(host);
        }
    }
    options.wanted()
}

/// The host of `override_auto_sni_header` where the request has it, else of the authority; without port and brackets.
fn host_of<'a>(protocol: &HttpOptions, head: &'a RequestHead) -> &'a str {
    let header = Some(protocol.override_auto_sni_header.as_str()).filter(|name| !name.is_empty());
    let text = header
        .and_then(|name| head.headers.get(name))
        .or(head.authority.as_ref())
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => return address,
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    // More than one colon: an IPv6 address without brackets.
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && !host.contains(':');
    if is_port { host } else { text }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(authority: &'static str) -> RequestHead {
        RequestHead {
            authority: Some(HeaderValue::from_static(authority)),
            ..crate::route::test_support::request("", "/", &[])
        }
    }

    #[test]
    fn the_host_goes_without_port_and_brackets() {
        let protocol = HttpOptions::default();
        for (authority, host) in [
            ("a.test", "a.test"),
            ("a.test:80", "a.test"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("", ""),
        ] {
            assert_eq!(host_of(&protocol, &head(authority)), host, "{authority}");
        }
    }

    #[test]
    fn another_header_wins_where_the_request_has_it() {
        let protocol = HttpOptions {
            override_auto_sni_header: "x-host".into(),
            ..HttpOptions::default()
        };
        let mut request = head("a.test");
        assert_eq!(host_of(&protocol, &request), "a.test");
        request.headers.insert("x-host", HeaderValue::from_static("b.test:443"));
        assert_eq!(host_of(&protocol, &request), "b.test");
    }
}
