//! What is expected was observed on Envoy 1.40.

use super::*;

const BOTH: &[ProxyVersion] = &[ProxyVersion::V1, ProxyVersion::V2];

fn v2_bytes(tail: &[u8]) -> Vec<u8> {
    [V2_SIGNATURE, tail].concat()
}

fn addresses(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
    Some((from.parse().unwrap(), to.parse().unwrap()))
}

#[test]
fn lines_of_version_1() {
    let malformed = ProxyStart::Malformed(ProxyVersion::V1);
    let header = |length, addresses| {
        ProxyStart::Header(ProxyHeader {
            version: ProxyVersion::V1,
            length,
            addresses,
            tlvs: Vec::new(),
        })
    };
    for (line, expected) in [
        (
            "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\nrest",
            header(38, addresses("1.2.3.4:1111", "5.6.7.8:2222")),
        ),
        (
            "PROXY TCP6 1::2 3::4 1 2\r\n",
            header(26, addresses("[1::2]:1", "[3::4]:2")),
        ),
        ("PROXY UNKNOWN whatever\r\n", header(24, None)),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1111\r\n", malformed.clone()),
        ("PROXY TCP4 1.2.3.4 224.6.7.8 1111 2222\r\n", malformed.clone()),
        ("PROXY TCP4 1::2 3::4 1 2\r\n", malformed.clone()),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1111 70000\r\n", malformed.clone()),
        ("PROXY TCP4 1.2.3.4", ProxyStart::Incomplete(Some(ProxyVersion::V1))),
        ("PROX", ProxyStart::Incomplete(None)),
        ("GET / HTTP/1.1", ProxyStart::Absent),
    ] {
        assert_eq!(parse(line.as_bytes(), BOTH, false), expected, "{line}");
    }
    assert_eq!(
        parse(format!("PROXY TCP4 {}", "x".repeat(200)).as_bytes(), BOTH, false),
        ProxyStart::Endless
    );
    assert_eq!(
        parse(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", &[ProxyVersion::V2], false),
        ProxyStart::Absent
    );
}

#[test]
fn headers_of_version_2() {
    let malformed = ProxyStart::Malformed(ProxyVersion::V2);
    let v4 = b"\x01\x02\x03\x04\x05\x06\x07\x08\x04\x57\x08\xae";
    let header = v2_bytes(
        &[
            b"\x21\x11\x00\x14",
            v4.as_slice(),
            b"\x02\x00\x03abc\xe0\x00\x00",
            b"rest",
        ]
        .concat(),
    );
    // Two TLVs of 6 and 3 bytes do not fill 8: the second one is cut short.
    assert_eq!(parse(&header, BOTH, false), malformed);
    let header = v2_bytes(
        &[
            b"\x21\x11\x00\x15",
            v4.as_slice(),
            b"\x02\x00\x03abc\xe0\x00\x00",
            b"rest",
        ]
        .concat(),
    );
    assert_eq!(
        parse(&header, BOTH, false),
        ProxyStart::Header(ProxyHeader {
            version: ProxyVersion::V2,
            length: 37,
            addresses: addresses("1.2.3.4:1111", "5.6.7.8:2222"),
            tlvs: vec![(2, Bytes::from_static(b"abc")), (0xe0, Bytes::new())],
        })
    );
    for end in 0..37 {
        let start = parse(header.get(..end).unwrap(), BOTH, false);
        assert!(matches!(start, ProxyStart::Incomplete(_)), "{end} bytes: {start:?}");
    }
    for tail in [
        b"\x31\x11\x00\x0c".as_slice(),
        b"\x21\x31\x00\x0c",
        b"\x22\x11\x00\x0c",
        b"\x21\x11\x00\x04",
    ] {
        assert_eq!(
            parse(&v2_bytes(&[tail, v4].concat()), BOTH, false),
            malformed,
            "{tail:?}"
        );
    }
    let local = v2_bytes(&[b"\x20\x11\x00\x0c", v4.as_slice()].concat());
    assert!(matches!(parse(&local, BOTH, false), ProxyStart::Header(h) if h.addresses.is_none() && h.length == 28));
}

#[test]
fn what_is_written_is_read_again() {
    for pair in [
        addresses("1.2.3.4:1111", "5.6.7.8:2222"),
        addresses("[1::2]:1", "[3::4]:2"),
        None,
    ] {
        let one = write_v1(pair);
        assert!(
            matches!(parse(&one, BOTH, false), ProxyStart::Header(h) if h.addresses == pair && h.length == one.len())
        );
        let big = vec![0; 70_000];
        let tlvs: [(u8, &[u8]); 3] = [(1, b"a"), (2, &big), (3, b"")];
        let two = write_v2(pair, tlvs.into_iter());
        let ProxyStart::Header(header) = parse(&two, BOTH, false) else {
            panic!("{two:?}");
        };
        assert_eq!((header.addresses, header.length), (pair, two.len()));
        let kinds: Vec<u8> = header.tlvs.iter().map(|t| t.0).collect();
        assert_eq!(kinds, if pair.is_some() { vec![1, 3] } else { vec![] });
    }
    assert_eq!(
        write_v1(addresses("1.2.3.4:1", "[::1]:2")),
        b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n"
    );
}

#[test]
fn where_a_header_is_required_few_bytes_are_waited_for() {
    let required = |bytes: &[u8]| parse(bytes, BOTH, true);
    assert!(matches!(required(b"GET / HTTP/1.1"), ProxyStart::Incomplete(_)));
    assert_eq!(required(b"GET / HTTP/1.1\r\n"), ProxyStart::Absent);
    assert_eq!(required(b"PROXY\r\n"), ProxyStart::Malformed(ProxyVersion::V1));
    let line = |padding: usize| required(format!("PROXY UNKNOWN {}\r\n", "x".repeat(padding)).as_bytes());
    assert!(matches!(line(92), ProxyStart::Header(h) if h.length == 108));
    assert_eq!(line(93), ProxyStart::Malformed(ProxyVersion::V1));
}
