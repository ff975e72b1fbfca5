use super::*;

fn options() -> H1Options {
    H1Options::default()
}

fn read(text: &str) -> Result<Head, CodecError> {
    read_with(text, &options())
}

fn read_with(text: &str, options: &H1Options) -> Result<Head, CodecError> {
    // One character is one byte, so that bytes above ASCII can be written.
    let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
    assert_eq!(find_end(&bytes, &mut 0), Some(bytes.len()), "{text:?}");
    parse(&bytes.into(), Scheme::Http, options)
}

/// The error that a head with these lines after `host` comes to.
fn refused(lines: &str) -> Option<CodecError> {
    read(&format!("POST / HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n")).err()
}

#[test]
fn a_plain_request() {
    let head = read("GET /a?b=c HTTP/1.1\r\nHost: example.test:80\r\nX-One: 1\r\nx-one:\t 2 \r\n\r\n").unwrap();
    let request = &head.request;
    assert_eq!(request.method, Method::GET);
    assert_eq!((request.path(), request.query()), ("/a?b=c", Some("b=c")));
    assert_eq!(request.host(), "example.test:80");
    assert_eq!(request.headers.get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!request.headers.contains_key("host"));
    assert_eq!(
        (head.length, head.keep_alive, head.scheme_given),
        (Length::None, true, false)
    );
}

#[test]
fn line_ends_and_white_space_that_envoy_takes() {
    for text in [
        "GET / HTTP/1.1\nhost: x\n\n",
        "GET / HTTP/1.1\r\nhost: x\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\n\n",
        "GET  / HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET\t/\tHTTP/1.1 \r\nhost:x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n x\r\n\r\n",
    ] {
        assert_eq!(read(text).unwrap().request.host(), "x", "{text:?}");
    }
}

#[test]
fn folded_lines_become_one() {
    for (folded, value) in [
        ("a: b\r\n c", "b c"),
        ("a: b\r\n\tc", "b\tc"),
        ("a: b\n c", "b c"),
        ("a:\r\n b", "b"),
        ("a: b\r\n ", "b"),
        ("a: b\r\n  c\r\n\t d", "b  c\t d"),
    ] {
        let head = read(&format!("GET / HTTP/1.1\r\nhost: x\r\n{folded}\r\n\r\n")).unwrap();
        assert_eq!(head.request.headers["a"], value, "{folded:?}");
    }
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    use CodecError::*;
    for (lines, error) in [
        ("content-length: 3\r\ntransfer-encoding: chunked", LengthAndChunked),
        ("content-length: 0\r\ntransfer-encoding: chunked", LengthAndChunked),
        ("transfer-encoding: identity\r\ncontent-length: 3", LengthAndChunked),
        ("content-length: 3\r\ncontent-length: 4", Syntax),
        ("content-length: 3\r\ncontent-length: 3", Syntax),
        ("content-length: 3, 3", Syntax),
        ("content-length: +3", Syntax),
        ("content-length: -1", Syntax),
        ("content-length: 0x3", Syntax),
        ("content-length: 3 4", Syntax),
        ("content-length:", Syntax),
        ("content-length: 99999999999999999999", Syntax),
        ("content-length: 3\r\n 4", Syntax),
        ("content-length:\r\n 3", Syntax),
        ("content-length : 3", Syntax),
        // It makes the line before it longer: that of `host`.
        (" content-length: 3", InvalidAuthority),
        ("transfer-encoding: gzip, chunked", TransferEncoding),
        ("transfer-encoding: identity", TransferEncoding),
        ("transfer-encoding:", TransferEncoding),
        ("transfer-encoding: chunked,", TransferEncoding),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            TransferEncoding,
        ),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
            TransferEncoding,
        ),
        ("transfer-encoding: \"chunked\"", TransferEncoding),
        ("transfer-encoding: \x0bchunked", InvalidCharacters),
        ("transfer-encoding:\r\n chunked", Syntax),
    ] {
        assert_eq!(refused(lines), Some(error), "{lines:?}");
    }
}

#[test]
fn framing_that_is_plain() {
    for (lines, length) in [
        ("content-length: 3", Length::Exact(3)),
        ("content-length: 003", Length::Exact(3)),
        ("content-length: \t3 \t", Length::Exact(3)),
        ("content-length: 0", Length::None),
        (
            "content-length: 999999999999999999",
            Length::Exact(999_999_999_999_999_999),
        ),
        ("transfer-encoding: Chunked", Length::Chunked),
        ("transfer-encoding: \tchunked\t ", Length::Chunked),
    ] {
        let head = read(&format!("POST / HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n")).unwrap();
        assert_eq!(head.length, length, "{lines:?}");
    }
}

#[test]
fn lines_that_are_no_headers() {
    use CodecError::*;
    for (lines, error) in [
        ("no colon", Syntax),
        ("bad name: x", Syntax),
        ("space : x", Syntax),
        (": x", Syntax),
        (":", Syntax),
        ("a(b: x", Syntax),
        ("a\u{ff}b: x", Syntax),
        ("a\x01b: x", InvalidCharacters),
        ("a: b\0c", InvalidCharacters),
        ("a: b\x7fc", InvalidCharacters),
        ("a: b\rc", Syntax),
        ("a: b\r", Syntax),
    ] {
        assert_eq!(refused(lines), Some(error), "{lines:?}");
    }
    assert_eq!(
        read("GET / HTTP/1.1\r\n folded\r\nhost: x\r\n\r\n").unwrap_err(),
        Syntax
    );
    assert_eq!(refused("a: \u{80}\u{ff}"), None);
    assert_eq!(refused("a!#$%&'*+-.^_`|~: x"), None);
}

#[test]
fn request_lines() {
    use CodecError::*;
    for (line, verdict) in [
        ("GET / HTTP/1.1", None),
        ("MSEARCH / HTTP/1.1", None),
        ("QUERY / HTTP/1.1", None),
        ("get / HTTP/1.1", Some(Syntax)),
        ("BREW / HTTP/1.1", Some(Syntax)),
        ("G@T / HTTP/1.1", Some(Syntax)),
        ("GET /a b HTTP/1.1", Some(Syntax)),
        ("GET /", Some(LowVersion)),
        ("GET / HTTP/1.0", Some(LowVersion)),
        ("GET / HTTP/2.0", Some(LowVersion)),
        ("GET / HTTP/11.1", Some(Syntax)),
        ("GET / http/1.1", Some(Syntax)),
        ("GET", Some(Syntax)),
        ("GET /\x01 HTTP/1.1", Some(InvalidCharacters)),
        ("GET /\u{e9} HTTP/1.1", Some(Syntax)),
        ("GET * HTTP/1.1", Some(InvalidUrl)),
        ("OPTIONS * HTTP/1.1", None),
        ("GET x HTTP/1.1", Some(Syntax)),
        ("GET ?a HTTP/1.1", Some(Syntax)),
        ("GET http://h.test/a HTTP/1.1", None),
        ("GET ftp://h.test/a HTTP/1.1", Some(InvalidScheme)),
        ("GET http://h.test:99999/a HTTP/1.1", Some(InvalidUrl)),
        ("GET http://h.test:/a HTTP/1.1", Some(InvalidUrl)),
        ("GET http://a_b/ HTTP/1.1", Some(InvalidUrl)),
        ("GET http:///a HTTP/1.1", Some(InvalidUrl)),
        ("GET http://a<b/ HTTP/1.1", Some(Syntax)),
        ("CONNECT h.test:443 HTTP/1.1", None),
        ("CONNECT [::1]:443 HTTP/1.1", None),
        ("CONNECT h.test HTTP/1.1", Some(InvalidUrl)),
        ("CONNECT u@h.test:443 HTTP/1.1", Some(InvalidUrl)),
        ("CONNECT /x HTTP/1.1", Some(InvalidUrl)),
    ] {
        assert_eq!(read(&format!("{line}\r\nhost: x\r\n\r\n")).err(), verdict, "{line:?}");
    }
}

#[test]
fn targets_replace_the_host() {
    for (target, host, path) in [
        ("http://h.test/x?y", "h.test", "/x?y"),
        ("HTTP://H.test:80", "H.test:80", "/"),
        ("https://u:p@h.test/s", "h.test", "/s"),
        ("http://[::1]:80/s", "[::1]:80", "/s"),
    ] {
        let head = read(&format!("GET {target} HTTP/1.1\r\nhost: other\r\n\r\n")).unwrap();
        assert_eq!((head.request.host(), head.request.path()), (host, path));
        assert!(head.scheme_given);
    }
    let head = read("CONNECT h.test:443 HTTP/1.1\r\nhost: other\r\n\r\n").unwrap();
    assert_eq!((head.request.host(), head.request.path.is_none()), ("h.test:443", true));
    assert_eq!(head.length, Length::Upgrade);
    let head = read("GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(head.request.path(), "/a#b");
}

#[test]
fn hosts() {
    let host = |value: &str| read(&format!("GET / HTTP/1.1\r\nhost: {value}\r\n\r\n")).err();
    for fine in ["a", "", "a:80", "[::1]:80", "a_b", "u@a", "a,b", "a!$&'()*+;=%41b"] {
        assert_eq!(host(fine), None, "{fine:?}");
    }
    for bad in ["a b", "a/b", "a?b", "a#b", "a<b", "a\"b", "a\\b", "a\u{ff}"] {
        assert_eq!(host(bad), Some(CodecError::InvalidAuthority), "{bad:?}");
    }
    let two = read("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").unwrap();
    assert_eq!(two.request.host(), "a,b");
}

#[test]
fn limits() {
    let options = H1Options {
        max_header_bytes: 100,
        max_headers: 3,
        ..options()
    };
    let sized = |n: usize| {
        let text = "GET / HTTP/1.1\r\nhost: x\r\na: \r\n\r\n";
        text.replace("a: ", &format!("a: {}", "x".repeat(n - text.len())))
    };
    assert!(read_with(&sized(100), &options).is_ok());
    assert_eq!(
        read_with(&sized(101), &options).unwrap_err(),
        CodecError::HeadersTooLarge
    );
    let counted = |n| format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(n));
    assert!(read_with(&counted(2), &options).is_ok());
    assert_eq!(
        read_with(&counted(3), &options).unwrap_err(),
        CodecError::TooManyHeaders
    );
}

#[test]
fn underscores() {
    let text = "GET / HTTP/1.1\r\nhost: x\r\na_b: c\r\n\r\n";
    let with = |underscores| {
        read_with(
            text,
            &H1Options {
                underscores,
                ..options()
            },
        )
    };
    assert!(with(Underscores::Allow).unwrap().request.headers.contains_key("a_b"));
    assert!(with(Underscores::Drop).unwrap().request.headers.is_empty());
    assert_eq!(with(Underscores::Reject).unwrap_err(), CodecError::Underscore);
}

#[test]
fn keep_alive() {
    let keeps = |version: &str, line: &str| {
        let options = H1Options {
            accept_http_10: true,
            ..options()
        };
        let text = format!("GET / HTTP/{version}\r\nhost: x\r\n{line}\r\n\r\n");
        read_with(&text, &options).unwrap().keep_alive
    };
    assert!(keeps("1.1", "a: b"));
    assert!(!keeps("1.1", "connection: foo, Close"));
    assert!(!keeps("1.1", "proxy-connection: close"));
    assert!(!keeps("1.0", "a: b"));
    assert!(keeps("1.0", "connection: keep-alive"));
}

#[test]
fn named_headers_go_no_further() {
    let head = read(
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: foo, te, close\r\nfoo: bar\r\nte: gzip, trailers\r\nbar: 1\r\n\r\n",
    )
    .unwrap();
    let headers = &head.request.headers;
    assert!(!headers.contains_key("foo") && headers.contains_key("bar"));
    assert_eq!(headers["te"], "trailers");
    assert_eq!(
        refused("connection: x-forwarded-for"),
        Some(CodecError::ConnectionHeader)
    );
    assert_eq!(refused("connection: :path"), Some(CodecError::ConnectionHeader));
    let many: Vec<String> = (0..10).map(|n| format!("a{n}")).collect();
    assert_eq!(
        refused(&format!("connection: {}", many.join(","))),
        Some(CodecError::ConnectionHeader)
    );
    let no_host = read("GET / HTTP/1.1\r\nhost: x\r\nconnection: host\r\n\r\n").unwrap();
    assert!(no_host.request.authority.is_none());
}

#[test]
fn upgrades() {
    let lengths = |lines: &str| read(&format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n")).unwrap();
    let websocket = lengths("connection: keep-alive, Upgrade\r\nupgrade: websocket");
    assert_eq!(websocket.length, Length::Upgrade);
    assert_eq!(websocket.request.headers["upgrade"], "websocket");
    assert_eq!(lengths("upgrade: websocket").length, Length::None);
    let h2c = lengths("connection: upgrade, http2-settings, foo\r\nupgrade: h2c\r\nhttp2-settings: a");
    assert_eq!(h2c.length, Length::None);
    assert!(!h2c.request.headers.contains_key("upgrade") && !h2c.request.headers.contains_key("http2-settings"));
    let connect = |lines: &str| read(&format!("CONNECT h:1 HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n")).err();
    assert_eq!(connect("content-length: 3"), Some(CodecError::BodyDisallowed));
    assert_eq!(connect("content-length: 0"), None);
    assert_eq!(
        connect("transfer-encoding: chunked"),
        Some(CodecError::TransferEncoding)
    );
}

#[test]
fn the_end_is_found_however_the_bytes_arrive() {
    for text in [
        "GET / HTTP/1.1\r\na: b\r\n\r\n",
        "GET / HTTP/1.1\na: b\n\n",
        "G\n\r\n",
        "\n\n",
    ] {
        for first in 0..text.len() {
            let mut searched = 0;
            assert_eq!(find_end(&text.as_bytes()[..first], &mut searched), None);
            assert_eq!(
                find_end(text.as_bytes(), &mut searched),
                Some(text.len()),
                "{text:?} cut at {first}"
            );
        }
    }
}

#[test]
fn what_cannot_become_a_request_is_not_waited_for() {
    let start = |text: &[u8]| check_start(text, &options()).err();
    assert_eq!(start(b"GET /a"), None);
    assert_eq!(start(b"GET / HTTP/1.1\r\na: "), None);
    assert_eq!(start(b"\x16\x03\x01"), Some(CodecError::Syntax));
    assert_eq!(start(b" GET"), Some(CodecError::Syntax));
    assert_eq!(start(b"GET /\r\n"), Some(CodecError::LowVersion));
    let lenient = H1Options {
        accept_http_10: true,
        ..options()
    };
    assert_eq!(check_start(b"GET /\r\n", &lenient), Ok(Some(7)));
    assert_eq!(check_start(b"GET / HTTP/1.0\r\n", &lenient), Ok(None));
    assert_eq!(start(&[b'x'; 61_441]), Some(CodecError::HeadersTooLarge));
}
