//! Path and host normalisation: what a route, a filter and an upstream must not see in two ways.

use http::{HeaderValue, StatusCode};
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction as Slashes;

use super::HcmConfig;
use crate::http::{LocalReply, Path, RequestHead};

/// Normalises the path as configured. The reply is a rejection, or a redirect to the path unescaped.
pub(super) fn path(head: &mut RequestHead, config: &HcmConfig) -> Result<(), Box<LocalReply>> {
    if !config.normalize_path
        && !config.merge_slashes
        && matches!(
            config.escaped_slashes,
            Slashes::KeepUnchanged | Slashes::ImplementationSpecificDefault
        )
    {
        return Ok(());
    }
    let Some(original) = head.path.as_ref() else {
        return Ok(());
    };
    let (path, query) = (original.path(), original.query());
    if path == "*" {
        return Ok(());
    }
    let mut new = path.to_owned();
    if config.normalize_path {
        new = canonical(&new);
    }
    let mut redirect = false;
    match config.escaped_slashes {
        Slashes::KeepUnchanged | Slashes::ImplementationSpecificDefault => {}
        Slashes::RejectRequest if has_escaped_slash(&new) => {
            return Err(Box::new(LocalReply::new(
                StatusCode::BAD_REQUEST,
                "",
                "path_normalization_failed",
            )));
        }
        Slashes::RejectRequest => {}
        action @ (Slashes::UnescapeAndRedirect | Slashes::UnescapeAndForward) => {
            if has_escaped_slash(&new) {
                new = unescape_slashes(&new);
                redirect = action == Slashes::UnescapeAndRedirect;
            }
        }
    }
    if config.merge_slashes {
        new = merged(&new);
    }
    if new == path {
        return Ok(());
    }
    if let Some(query) = query {
        new.push('?');
        new.push_str(query);
    }
    let Some(parsed) = Path::new(new.clone()) else {
        return Err(Box::new(LocalReply::new(
            StatusCode::BAD_REQUEST,
            "",
            "path_normalization_failed",
        )));
    };
    head.path = Some(parsed);
    if redirect {
        let mut reply = LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "", "path_normalization_failed");
        if let Ok(location) = HeaderValue::from_str(&new) {
            reply.headers.insert(http::header::LOCATION, location);
        }
        return Err(Box::new(reply));
    }
    Ok(())
}

/// RFC 3986: unreserved characters unescaped, backslashes turned, dot segments resolved.
fn canonical(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        if c == '%'
            && let Some(byte) = rest.get(1..3).and_then(|h| u8::from_str_radix(h, 16).ok())
            && (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        {
            plain.push(byte as char);
            rest = rest.get(3..).unwrap_or_default();
            continue;
        }
        plain.push(if c == '\\' { '/' } else { c });
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    let mut out: Vec<&str> = Vec::new();
    let segments: Vec<&str> = plain.split('/').skip(1).collect();
    for (i, segment) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        match *segment {
            "." if last => out.push(""),
            "." => {}
            ".." => {
                out.pop();
                if last {
                    out.push("");
                }
            }
            s => out.push(s),
        }
    }
    format!("/{}", out.join("/"))
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes()
        .windows(3)
        .any(|w| matches!(w, b"%2F" | b"%2f" | b"%5C" | b"%5c"))
}

fn unescape_slashes(path: &str) -> String {
    path.replace("%2F", "/")
        .replace("%2f", "/")
        .replace("%5C", "\\")
        .replace("%5c", "\\")
}

fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// Strips the port and the trailing dot of the host as configured.
pub(super) fn host(head: &mut RequestHead, config: &HcmConfig, local_port: Option<u16>) {
    if !config.strip_matching_port && !config.strip_any_port && !config.strip_trailing_dot {
        return;
    }
    let Some(host) = head.authority.as_ref().and_then(|v| v.to_str().ok()) else {
        return;
    };
    let (name, port) = split_port(host);
    let strip_port = port
        .is_some_and(|p| config.strip_any_port || (config.strip_matching_port && p.parse().ok() == local_port))
        && head.method != http::Method::CONNECT;
    let bare = if config.strip_trailing_dot {
        name.strip_suffix('.').unwrap_or(name)
    } else {
        name
    };
    let new = match port {
        Some(port) if !strip_port => format!("{bare}:{port}"),
        _ => bare.to_owned(),
    };
    if new != host
        && let Ok(value) = HeaderValue::from_str(&new)
    {
        head.authority = Some(value);
    }
}

/// `name:port` and `[v6]:port` apart.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_and_escapes() {
        for (from, to) in [
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/..", "/"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a\\b", "/a/b"),
            ("/%41%2f", "/A%2f"),
            ("//a//b", "//a//b"),
        ] {
            assert_eq!(canonical(from), to, "{from}");
        }
        assert_eq!(merged("//a///b/"), "/a/b/");
    }

    #[test]
    fn ports() {
        assert_eq!(split_port("a:80"), ("a", Some("80")));
        assert_eq!(split_port("[::1]:80"), ("[::1]", Some("80")));
        assert_eq!(split_port("::1"), ("::1", None));
        assert_eq!(split_port("a"), ("a", None));
    }
}
