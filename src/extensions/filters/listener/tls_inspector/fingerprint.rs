//! JA3 and JA4: what tells one TLS library from another by its ClientHello.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    client_hello::{
        ALPN, ClientHello, EC_POINT_FORMATS, SERVER_NAME, SIGNATURE_ALGORITHMS, SUPPORTED_GROUPS, SUPPORTED_VERSIONS,
    },
    md5,
    reader::Reader,
};

/// Values that clients mix in by chance, so that servers learn to pass over what they do not know (RFC 8701).
fn is_grease(id: u16) -> bool {
    let [high, low] = id.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

/// The hash of version, cipher suites, extensions, groups and point formats.
pub(super) fn ja3(hello: &ClientHello) -> String {
    let listed = |ids: &mut dyn Iterator<Item = u16>| ids.map(|id| id.to_string()).collect::<Vec<_>>().join("-");
    let groups = hello.extension(SUPPORTED_GROUPS).unwrap_or_default();
    let formats = hello.extension(EC_POINT_FORMATS).unwrap_or_default();
    let text = format!(
        "{},{},{},{},{}",
        hello.version,
        listed(&mut hello.ciphers.iter().copied().filter(|c| !is_grease(*c))),
        listed(
            &mut hello
                .extensions
                .iter()
                .map(|(kind, _)| *kind)
                .filter(|k| !is_grease(*k))
        ),
        // As in Envoy, GREASE stays among the groups.
        listed(&mut Reader(groups.get(2..).unwrap_or_default()).u16s().into_iter()),
        listed(&mut formats.iter().skip(1).map(|f| u16::from(*f))),
    );
    md5::hex(text.as_bytes())
}

/// `t13d1516h2_8daaf6152771_b186095e22b6`: what can be read, the cipher suites, and the extensions with the signature
/// algorithms.
pub(super) fn ja4(hello: &ClientHello) -> String {
    let mut ciphers: Vec<u16> = hello.ciphers.iter().copied().filter(|c| !is_grease(*c)).collect();
    let kinds = hello
        .extensions
        .iter()
        .map(|(kind, _)| *kind)
        .filter(|k| !is_grease(*k));
    let count = kinds.clone().count();
    let mut extensions: Vec<u16> = kinds.filter(|k| !matches!(*k, SERVER_NAME | ALPN)).collect();
    let start = format!(
        "t{}{}{:02}{:02}{}",
        version(hello),
        if hello.extension(SERVER_NAME).is_some() {
            'd'
        } else {
            'i'
        },
        ciphers.len().min(99),
        count.min(99),
        protocol(hello)
    );
    ciphers.sort_unstable();
    extensions.sort_unstable();
    let algorithms = hello.extension(SIGNATURE_ALGORITHMS).unwrap_or_default();
    let algorithms = Reader(algorithms.get(2..).unwrap_or_default()).u16s();
    let mut text = listed(&extensions);
    if !algorithms.is_empty() {
        text.push('_');
        text.push_str(&listed(&algorithms));
    }
    let hash = |ids: &[u16], text: &str| match ids.is_empty() {
        true => "0".repeat(12),
        false => short_hash(text),
    };
    format!(
        "{start}_{}_{}",
        hash(&ciphers, &listed(&ciphers)),
        hash(&extensions, &text)
    )
}

/// The highest version offered.
fn version(hello: &ClientHello) -> &'static str {
    let offered = match hello.extension(SUPPORTED_VERSIONS) {
        Some(value) => {
            let Some(versions) = Reader(value).prefixed_u8() else {
                return "00";
            };
            Reader(versions).u16s().into_iter().filter(|v| !is_grease(*v)).max()
        }
        None => None,
    };
    match offered.filter(|v| *v != 0).unwrap_or(hello.version) {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        _ => "00",
    }
}

/// The ends of the first protocol; half a byte of each when either is no letter or digit.
fn protocol(hello: &ClientHello) -> String {
    let first = hello.extension(ALPN).and_then(|value| {
        let mut value = Reader(value);
        value.u16()?;
        value.prefixed_u8()
    });
    let Some([first, .., last] | [first @ last]) = first else {
        return "00".to_owned();
    };
    match first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        true => format!("{}{}", char::from(*first), char::from(*last)),
        false => format!("{:x}{:x}", first >> 4, last & 0x0f),
    }
}

fn listed(ids: &[u16]) -> String {
    let mut text = String::new();
    for id in ids {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{id:04x}");
    }
    text
}

/// Six bytes of SHA-256.
fn short_hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref().iter().take(6).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> ClientHello {
        ClientHello {
            version: 0x0303,
            ciphers: vec![0x0a0a, 0x1302, 0x1301],
            extensions: vec![
                (0x1a1a, vec![]),
                (SERVER_NAME, vec![]),
                (SUPPORTED_GROUPS, vec![0, 4, 0, 29, 0, 23]),
                (EC_POINT_FORMATS, vec![1, 0]),
                (SIGNATURE_ALGORITHMS, vec![0, 2, 4, 3]),
                (ALPN, b"\0\x0c\x02h2\x08http/1.1".to_vec()),
                (SUPPORTED_VERSIONS, vec![4, 3, 4, 3, 3]),
            ],
        }
    }

    #[test]
    fn grease_is_passed_over() {
        assert_eq!(ja3(&hello()), md5::hex(b"771,4866-4865,0-10-11-13-16-43,29-23,0"));
        let ciphers = short_hash("1301,1302");
        let extensions = short_hash("000a,000b,000d,002b_0403");
        assert_eq!(ja4(&hello()), format!("t13d0206h2_{ciphers}_{extensions}"));
    }

    #[test]
    fn a_protocol_that_is_no_text() {
        let mut hello = hello();
        hello.extensions = vec![(ALPN, vec![0, 3, 2, 0xab, 0xcd])];
        assert_eq!(
            ja4(&hello),
            format!("t12i0201ad_{}_000000000000", short_hash("1301,1302"))
        );
        hello.extensions.clear();
        assert!(ja4(&hello).starts_with("t12i020000_"));
    }
}
