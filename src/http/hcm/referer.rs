//! `referer`: what is no URL as Envoy reads one does not go on.

/// Whether the value may stay: an `http` like URL without user information and fragment, or a relative one.
pub(super) fn is_fine(value: &[u8]) -> bool {
    if value.iter().any(|b| *b == b'#' || *b <= b' ' || *b == 0x7f) {
        return false;
    }
    let first = value.iter().position(|b| matches!(b, b':' | b'/'));
    match first.and_then(|at| value.split_at_checked(at)) {
        Some((scheme, [b':', rest @ ..])) => is_scheme(scheme) && rest.strip_prefix(b"//").is_some_and(is_hierarchy),
        _ => value.iter().all(|b| is_path(*b)),
    }
}

fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// A host, perhaps with a port, and whatever follows.
fn is_hierarchy(rest: &[u8]) -> bool {
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let (host, port, fine) = match authority {
        [b'[', inner @ ..] => {
            let Some((host, port)) = split(inner, b']') else {
                return false;
            };
            let fine = host.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
            (host, port, fine)
        }
        _ => {
            let at = authority.iter().position(|b| *b == b':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(at).unwrap_or_default();
            let fine = host
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
            (host, port, fine)
        }
    };
    fine && !host.is_empty() && (port.is_empty() || is_port(port))
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == at)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

fn is_port(port: &[u8]) -> bool {
    let digits = port.strip_prefix(b":").filter(|d| d.iter().all(u8::is_ascii_digit));
    digits
        .and_then(|d| std::str::from_utf8(d).ok()?.parse::<u16>().ok())
        .is_some()
}

fn is_path(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&b) || b >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_envoy_has_it() {
        for fine in [
            "",
            "http://a.test/b?c",
            "https://a.test:99/",
            "HTTP://A/",
            "http://[::1]/",
            "http://a.test/<>",
            "//x/y",
            "/relative",
            "foo",
            "foo/bar:baz",
            "?x",
            "a,b",
            "http://a.test/,http://b.test/",
        ] {
            assert!(is_fine(fine.as_bytes()), "{fine}");
        }
        for bad in [
            "http://a.test/#d",
            "#x",
            "mailto:x",
            "http://u:p@h/",
            "http:///x",
            "http://a_b/",
            "about:blank",
            "http:/foo",
            "a b",
            "http://[::1",
            "http://a.test:bad/",
            "http://a.test:99999/",
            "http://a.test:",
            "a.test:80",
            "foo?x:y",
            "/<>",
            "[::1]",
        ] {
            assert!(!is_fine(bad.as_bytes()), "{bad}");
        }
    }
}
