use std::{cell::Cell, collections::VecDeque};

use futures_util::task::noop_waker;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;
use crate::http::{
    Scheme,
    codec::{H1Options, HeaderCase},
};

/// What the upstream of a test says, read by read, and what it was told.
#[derive(Default)]
struct Script {
    reads: VecDeque<Vec<u8>>,
    /// Closes after the last read; waits otherwise.
    closes: bool,
    written: Rc<RefCell<Vec<u8>>>,
    /// Writes fail.
    deaf: Rc<Cell<bool>>,
}

impl Script {
    fn new(text: &[u8], split: usize, closes: bool) -> Self {
        let (a, b) = text.split_at(split.min(text.len()));
        let reads = [a, b].into_iter().filter(|part| !part.is_empty()).map(<[u8]>::to_vec);
        Self {
            reads: reads.collect(),
            closes,
            ..Self::default()
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.reads.pop_front() {
            // Between two reads the reader has to wait once.
            Some(read) if read.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(mut read) => {
                let n = read.len().min(buf.remaining());
                buf.put_slice(&read[..n]);
                read.drain(..n);
                if !read.is_empty() {
                    self.reads.push_front(read);
                }
                Poll::Ready(Ok(()))
            }
            None if self.closes => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.written.borrow_mut().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn request(method: Method) -> RequestHead {
    RequestHead {
        method,
        scheme: Scheme::Http,
        authority: Some(HeaderValue::from_static("a.test")),
        path: Some("/x?y".parse().unwrap()),
        protocol: None,
        version: http::Version::HTTP_11,
        headers: HeaderMap::new(),
        spelling: None,
    }
}

/// A response as a test looks at it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    informational: Vec<u16>,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: usize,
    /// The connection can be used again.
    reusable: bool,
    error: Option<String>,
}

fn run(script: Script, head: RequestHead, body: Body, options: ClientOptions) -> Seen {
    let waker = noop_waker();
    let cx = &mut Context::from_waker(&waker);
    let client = Client::new(script, options);
    let mut seen = Seen::default();
    let Some(mut exchange) = client.exchange(head, body) else {
        seen.error = Some("no request".into());
        return seen;
    };
    let begun = loop {
        match exchange.poll_head(cx, &mut |head| seen.informational.push(head.status.as_u16())) {
            Poll::Ready(Ok(begun)) => break begun,
            Poll::Ready(Err(error)) => {
                seen.error = Some(error.to_string());
                return seen;
            }
            Poll::Pending if client.inner.borrow().stream.as_ref().unwrap().reads.is_empty() => {
                seen.error = Some("waits".into());
                return seen;
            }
            Poll::Pending => {}
        }
    };
    seen.status = begun.head.status.as_u16();
    seen.headers = begun
        .head
        .headers
        .iter()
        .map(|(n, v)| (n.to_string(), v.as_bytes().to_vec()))
        .collect();
    loop {
        match exchange.poll_body(cx) {
            Poll::Ready(None) => break,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => seen.body.extend_from_slice(&data),
                Err(frame) => seen.trailers = frame.into_trailers().map_or(0, |t| t.len()),
            },
            Poll::Ready(Some(Err(error))) => {
                seen.error = Some(error.to_string());
                return seen;
            }
            Poll::Pending if client.inner.borrow().stream.as_ref().unwrap().reads.is_empty() => {
                seen.error = Some("waits".into());
                return seen;
            }
            Poll::Pending => {}
        }
    }
    seen.reusable = matches!(exchange.finish(), Finished::Free(_));
    seen
}

fn get(response: &str) -> Seen {
    let script = Script::new(response.as_bytes(), 0, true);
    let mut seen = run(script, request(Method::GET), Body::Empty, ClientOptions::default());
    // Whether it was free before the upstream closed is what the tests below ask for.
    if !seen.reusable && seen.error.is_none() {
        let script = Script::new(response.as_bytes(), 0, false);
        seen.reusable = run(script, request(Method::GET), Body::Empty, ClientOptions::default()).reusable;
    }
    seen
}

#[test]
fn responses_are_read_however_they_are_cut() {
    let responses = [
        "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\nu: 2\r\n\r\n",
        "HTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 200\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    ];
    let options = ClientOptions {
        limits: H1Options {
            enable_trailers: true,
            ..H1Options::default()
        },
        ..ClientOptions::default()
    };
    for response in responses {
        let whole = run(
            Script::new(response.as_bytes(), 0, true),
            request(Method::GET),
            Body::Empty,
            options.clone(),
        );
        for split in 1..response.len() {
            let script = Script::new(response.as_bytes(), split, true);
            let cut = run(script, request(Method::GET), Body::Empty, options.clone());
            assert_eq!(cut, whole, "{response:?} cut at {split}");
        }
    }
}

#[test]
fn bodies_end_as_told() {
    let seen = get("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!((seen.status, &*seen.body, seen.reusable), (200, &b"ok"[..], true));
    let seen = get("HTTP/1.1 200 OK\r\n\r\nto the end");
    assert_eq!((&*seen.body, seen.reusable), (&b"to the end"[..], false));
    for bodiless in ["204 No Content", "304 Not Modified"] {
        let seen = get(&format!("HTTP/1.1 {bodiless}\r\n\r\n"));
        assert_eq!((seen.body.len(), seen.reusable), (0, true), "{bodiless}");
    }
    let script = Script::new(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 0, false);
    let seen = run(script, request(Method::HEAD), Body::Empty, ClientOptions::default());
    assert_eq!((seen.body.len(), seen.reusable), (0, true));
}

#[test]
fn connections_are_used_again_only_when_nothing_is_left() {
    for last in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nx",
    ] {
        let seen = get(last);
        assert_eq!((seen.error, seen.reusable), (None, false), "{last:?}");
    }
    let seen = get("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n");
    assert!(seen.reusable);
}

#[test]
fn what_is_no_response_is_refused() {
    for (response, error) in [
        ("", "connection closed"),
        ("HTTP/1.1 200", "unexpected end of stream"),
        ("HTTP/1.1 200 OK\r\na: b\r\n", "unexpected end of stream"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "unexpected end of stream",
        ),
        ("garbage\r\n\r\n", "http1.codec_error"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "http1.codec_error"),
        ("HTTP/1.1 xyz OK\r\n\r\n", "http1.codec_error"),
        ("HTTP/1.1 20 OK\r\n\r\n", "http1.codec_error"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "http1.codec_error"),
        ("HTTP/1.1 099 OK\r\n\r\n", "http1.codec_error"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            "http1.content_length_and_chunked_not_allowed",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
            "http1.codec_error",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "http1.invalid_transfer_encoding",
        ),
        (
            "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n",
            "http1.body_disallowed",
        ),
        (
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
            "http1.body_disallowed",
        ),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "http1.codec_error"),
        ("HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n", "http1.invalid_characters"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "http1.codec_error",
        ),
    ] {
        assert_eq!(get(response).error.as_deref(), Some(error), "{response:?}");
    }
}

#[test]
fn heads_are_limited() {
    let big = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(70_000));
    assert_eq!(get(&big).error.as_deref(), Some("http1.headers_too_large"));
    let many: String = (0..101).map(|i| format!("h{i}: x\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
    assert_eq!(get(&many).error.as_deref(), Some("http1.too_many_headers"));
}

/// What is written for a request.
fn written(head: RequestHead, body: Body, options: ClientOptions) -> String {
    let script = Script::default();
    let written = script.written.clone();
    run(script, head, body, options);
    let bytes = written.take();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn requests_on_the_wire() {
    let plain = ClientOptions::default();
    let write = |method, body| written(request(method), body, ClientOptions::default());
    assert_eq!(
        write(Method::GET, Body::Empty),
        "GET /x?y HTTP/1.1\r\nhost: a.test\r\n\r\n"
    );
    assert_eq!(
        write(Method::POST, Body::Empty),
        "POST /x?y HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        write(Method::POST, Body::full("abc")),
        "POST /x?y HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let mut sized = request(Method::PUT);
    sized.headers.insert("content-length", HeaderValue::from_static("3"));
    assert_eq!(
        written(sized, Body::full("abc"), plain.clone()),
        "PUT /x?y HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\n\r\nabc"
    );
    assert_eq!(
        write(Method::CONNECT, Body::Empty),
        "CONNECT a.test HTTP/1.1\r\nhost: a.test\r\n\r\n"
    );
    let absolute = ClientOptions {
        absolute_url: true,
        ..plain.clone()
    };
    assert_eq!(
        written(request(Method::GET), Body::Empty, absolute),
        "GET http://a.test/x?y HTTP/1.1\r\nhost: a.test\r\n\r\n"
    );
    let mut upgrade = request(Method::CONNECT);
    upgrade.protocol = Some("websocket".into());
    assert_eq!(
        written(upgrade, Body::Empty, plain.clone()),
        "GET /x?y HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    let proper = ClientOptions {
        limits: H1Options {
            case: HeaderCase::ProperWords,
            ..H1Options::default()
        },
        ..plain
    };
    let mut head = request(Method::POST);
    head.headers
        .insert(HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
    assert_eq!(
        written(head, Body::Empty, proper),
        "POST /x?y HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn requests_that_cannot_be_told_apart_are_not_sent() {
    let mut two = request(Method::POST);
    two.headers.append("content-length", HeaderValue::from_static("3"));
    two.headers.append("content-length", HeaderValue::from_static("4"));
    assert_eq!(written(two, Body::full("abcd"), ClientOptions::default()), "");
    let mut blank = request(Method::CONNECT);
    blank.authority = Some(HeaderValue::from_static("a b"));
    assert_eq!(written(blank, Body::Empty, ClientOptions::default()), "");
    // A body that is not as long as announced ends the connection.
    for (length, body) in [("2", "abc"), ("4", "abc")] {
        let mut head = request(Method::POST);
        head.headers.insert("content-length", HeaderValue::from_static(length));
        let script = Script::new(b"", 0, false);
        let seen = run(script, head, Body::full(body), ClientOptions::default());
        assert_eq!(
            seen.error.as_deref(),
            Some("stream reset: not as long as announced"),
            "{length}"
        );
    }
}

#[test]
fn a_response_counts_though_the_request_could_not_be_sent() {
    let script = Script::new(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno", 0, false);
    script.deaf.set(true);
    let seen = run(
        script,
        request(Method::POST),
        Body::full("abc"),
        ClientOptions::default(),
    );
    assert_eq!((seen.status, &*seen.body, seen.reusable), (413, &b"no"[..], false));
}

/// A body that never ends.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Pending
    }
}

#[test]
fn a_response_that_comes_before_the_end_of_the_request_is_the_last() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let script = Script::new(answer, 0, false);
    let seen = run(
        script,
        request(Method::POST),
        Body::boxed(Endless),
        ClientOptions::default(),
    );
    assert_eq!((seen.status, &*seen.body, seen.reusable), (200, &b"ok"[..], false));
    // All that was announced is out, though the body does not know it.
    let mut head = request(Method::POST);
    head.headers.insert("content-length", HeaderValue::from_static("0"));
    let script = Script::new(answer, 0, false);
    assert!(run(script, head, Body::boxed(Endless), ClientOptions::default()).reusable);
}

#[test]
fn idle_connections_end_with_what_comes() {
    let waker = noop_waker();
    let cx = &mut Context::from_waker(&waker);
    let idle = |text: &str, closes| Client::new(Script::new(text.as_bytes(), 0, closes), ClientOptions::default());
    assert_eq!(idle("", false).poll_idle(cx), Poll::Pending);
    assert_eq!(idle("", true).poll_idle(cx), Poll::Ready(IdleEnd::Closed));
    let unasked = |timeout| Poll::Ready(IdleEnd::Unasked { timeout });
    assert_eq!(idle("HTTP/1.1 200 OK\r\n\r\n", false).poll_idle(cx), unasked(false));
    assert_eq!(
        idle("HTTP/1.1 408 Request Timeout\r\n\r\n", false).poll_idle(cx),
        unasked(true)
    );
    let client = idle("x", false);
    assert!(!client.is_alive(cx));
    assert!(client.is_ended());
}

#[test]
fn a_dropped_exchange_ends_its_connection() {
    let client = Client::new(Script::default(), ClientOptions::default());
    let exchange = client.exchange(request(Method::GET), Body::Empty).unwrap();
    assert!(!client.is_ended());
    drop(exchange);
    assert!(client.is_ended());
}

#[test]
fn tunnels_take_what_was_read() {
    let waker = noop_waker();
    let cx = &mut Context::from_waker(&waker);
    for (method, protocol, response) in [
        (Method::CONNECT, None, "HTTP/1.1 200 OK\r\n\r\nearly"),
        (
            Method::CONNECT,
            Some("websocket"),
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly",
        ),
    ] {
        let script = Script::new(response.as_bytes(), 0, false);
        let client = Client::new(script, ClientOptions::default());
        let mut head = request(method);
        head.protocol = protocol.map(Into::into);
        let mut exchange = client.exchange(head, Body::Empty).unwrap();
        let Poll::Ready(Ok(begun)) = exchange.poll_head(cx, &mut |_| {}) else {
            panic!()
        };
        assert!(begun.tunnel);
        assert!(begun.head.status == StatusCode::OK || begun.head.status == StatusCode::SWITCHING_PROTOCOLS);
        let (_, read) = exchange.into_stream().unwrap();
        assert_eq!(read, "early");
        assert_eq!(client.poll_idle(cx), Poll::Ready(IdleEnd::Given));
    }
}

#[test]
fn spelling_is_kept() {
    let options = ClientOptions {
        limits: H1Options {
            case: HeaderCase::Preserved {
                proper_others: false,
                reason: true,
            },
            ..H1Options::default()
        },
        ..ClientOptions::default()
    };
    let waker = noop_waker();
    let cx = &mut Context::from_waker(&waker);
    let script = Script::new(
        b"HTTP/1.1 200 Very Fine\r\nX-oWn: 1\r\ncontent-length: 0\r\n\r\n",
        0,
        false,
    );
    let client = Client::new(script, options);
    let mut exchange = client.exchange(request(Method::GET), Body::Empty).unwrap();
    let Poll::Ready(Ok(begun)) = exchange.poll_head(cx, &mut |_| {}) else {
        panic!()
    };
    let spelling = begun.head.spelling.unwrap();
    assert_eq!(spelling.find(b"x-own"), Some(&b"X-oWn"[..]));
    assert_eq!(spelling.reason.as_deref(), Some(&b"Very Fine"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No bytes and no cut make it fail in another way than with an error, and the cut changes nothing.
    #[test]
    fn any_bytes(
        head in prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\n", "HTTP/1.0 304 N\r\n", "HTTP/1.1", "",
        ]),
        lines in prop::collection::vec(prop::sample::select(vec![
            "content-length: 3\r\n", "transfer-encoding: chunked\r\n", "a: b\r\n", " fold\r\n", "connection: close\r\n",
            "content-length: 3\n", "x", ": y\r\n",
        ]), 0..4),
        tail in prop::collection::vec(prop::sample::select(vec![
            &b"\r\n"[..], b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\0", b"\n", b"HTTP/1.1 200 OK\r\n\r\n",
        ]), 0..6),
        split in 0usize..120,
    ) {
        let mut bytes = head.as_bytes().to_vec();
        lines.iter().for_each(|l| bytes.extend_from_slice(l.as_bytes()));
        bytes.extend_from_slice(b"\r\n");
        tail.iter().for_each(|t| bytes.extend_from_slice(t));
        let send = |split| {
            let script = Script::new(&bytes, split, true);
            let mut seen = run(script, request(Method::GET), Body::Empty, ClientOptions::default());
            // What follows a response may be seen with it or not: the connection has ended either way.
            seen.reusable = false;
            seen
        };
        let whole = send(0);
        let cut = send(split);
        match (&whole.error, &cut.error) {
            (None, None) => prop_assert_eq!(whole, cut),
            (a, b) => prop_assert_eq!(a.is_some(), b.is_some()),
        }
    }
}
