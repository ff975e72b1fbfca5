//! The host that a request names.

use std::net::IpAddr;

/// A host with an optional port, taken apart as Envoy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The name or the address, the latter without brackets.
    pub host: &'a str,
    /// The port, if there is a good one; if there is a bad one it stays part of the name, which resolves to nothing.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Takes it apart.
    pub fn parse(text: &'a str) -> Self {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => match number(port) {
                Some(port) => (host, Some(port)),
                None => (text, None),
            },
            _ => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.filter(|h| h.parse::<IpAddr>().is_ok()).unwrap_or(host);
        Self { host, port }
    }

    /// The name under which a cache knows a host: always with its port.
    pub fn key(text: &'a str, default_port: u16) -> String {
        match Self::parse(text).port {
            Some(_) => text.to_owned(),
            None => format!("{text}:{default_port}"),
        }
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
