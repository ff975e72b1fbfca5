//! Host normalisation: the port and the trailing dot of `:authority`.

use http::{HeaderValue, Method};

use super::HcmConfig;
use crate::http::RequestHead;

/// Strips the port and the trailing dot of the host as configured. Returns the port that a CONNECT has lost, which its
/// upstream is to see.
pub(super) fn normalize(head: &mut RequestHead, config: &HcmConfig, local_port: Option<u16>) -> Option<u32> {
    if !config.strip_matching_port && !config.strip_any_port && !config.strip_trailing_dot {
        return None;
    }
    let original = head.authority.as_ref().and_then(|v| v.to_str().ok())?.to_owned();
    let mut host = original.clone();
    if config.strip_trailing_dot {
        strip_dot(&mut host);
    }
    let only = match config.strip_any_port {
        true => None,
        false => Some(local_port.map_or(0, u32::from)),
    };
    let mut stripped = None;
    if (config.strip_any_port || config.strip_matching_port)
        && let Some((name, port)) = split_port(&host)
        && only.is_none_or(|only| only == port)
    {
        stripped = Some(port);
        host = name.to_owned();
    }
    if host != original
        && let Ok(value) = HeaderValue::from_str(&host)
    {
        head.authority = Some(value);
    }
    stripped.filter(|_| head.method == Method::CONNECT)
}

/// Gives a CONNECT its port back, unless a filter gave it another.
pub(super) fn restore_port(head: &mut RequestHead, port: u32) {
    if let Some(host) = head.authority.as_ref().and_then(|v| v.to_str().ok())
        && port_start(host).is_none()
        && let Ok(value) = HeaderValue::from_str(&format!("{host}:{port}"))
    {
        head.authority = Some(value);
    }
}

/// Where the colon of the port is; an IPv6 address with one is in brackets.
fn port_start(host: &str) -> Option<usize> {
    let colon = host.rfind(':')?;
    host.rfind(']').is_none_or(|end| end < colon).then_some(colon)
}

fn split_port(host: &str) -> Option<(&str, u32)> {
    let (name, port) = host.split_at_checked(port_start(host)?)?;
    let digits = port.get(1..)?;
    let number = digits.bytes().all(|b| b.is_ascii_digit());
    Some((name, digits.parse().ok().filter(|_| number)?))
}

/// The last dot, at the end or right before a colon.
fn strip_dot(host: &mut String) {
    if let Some(dot) = host.rfind('.')
        && matches!(host.as_bytes().get(dot + 1), None | Some(b':'))
    {
        host.remove(dot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(split_port("a:80"), Some(("a", 80)));
        assert_eq!(split_port("a:080"), Some(("a", 80)));
        assert_eq!(split_port("[::1]:80"), Some(("[::1]", 80)));
        assert_eq!(split_port("a:80:81"), Some(("a:80", 81)));
        for none in ["a", "[::1]", "a:", "a:x", "a:+1"] {
            assert_eq!(split_port(none), None, "{none}");
        }
    }

    #[test]
    fn dots() {
        for (from, to) in [
            ("a.", "a"),
            ("a.b", "a.b"),
            ("a..", "a."),
            ("a.:80", "a:80"),
            (".", ""),
            ("a.:x", "a:x"),
        ] {
            let mut host = from.to_owned();
            strip_dot(&mut host);
            assert_eq!(host, to, "{from}");
        }
    }
}
