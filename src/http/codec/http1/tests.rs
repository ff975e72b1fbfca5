use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use http::{StatusCode, Version};
use http_body_util::BodyExt;
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{LocalSet, yield_now},
};

use super::*;
use crate::{
    http::{
        ResponseHead,
        codec::{CodecType, H1Options, Http2CodecStats, Reset},
    },
    server::DrainSignal,
    stats::Stats,
};

/// Answers each request with its body, or as its path says.
#[derive(Default)]
struct Echo {
    closed: Cell<Option<CloseReason>>,
    refused: RefCell<Vec<CodecError>>,
    /// Heads that the client left unfinished.
    cut: Cell<u32>,
    /// Requests whose handler was dropped before it had answered.
    dropped: Rc<Cell<u32>>,
}

fn reply(status: StatusCode, body: impl Into<bytes::Bytes>) -> (ResponseHead, Body) {
    let body = body.into();
    let mut head = ResponseHead::new(status);
    head.set_static(http::header::DATE, "now");
    head.headers.insert(http::header::CONTENT_LENGTH, body.len().into());
    (head, Body::full(body))
}

struct NoteDrop(Rc<Cell<u32>>);

impl Drop for NoteDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Handler for Echo {
    async fn handle(self: Rc<Self>, request: CodecRequest) -> (ResponseHead, Body) {
        match request.head.path() {
            "/unread" => return reply(StatusCode::OK, "unread"),
            "/never" => {
                let _note = NoteDrop(self.dropped.clone());
                std::future::pending::<()>().await;
            }
            "/continue" => request.handle.inform(StatusCode::CONTINUE, &http::HeaderMap::new()),
            "/large" => return reply(StatusCode::OK, vec![b'x'; 1 << 20]),
            "/upgrade" => {
                let Some(upgrade) = request.upgrade else {
                    return reply(StatusCode::BAD_REQUEST, "no upgrade");
                };
                tokio::task::spawn_local(async move {
                    let (mut read, mut write) = tokio::io::split(upgrade.take().await.unwrap());
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                let mut head = ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS);
                head.set_static(http::header::DATE, "now");
                return (head, Body::Empty);
            }
            _ => {}
        }
        match request.body.collect().await {
            Ok(body) => reply(StatusCode::OK, body.to_bytes()),
            Err(_) => match request.handle.fault() {
                Some(fault) => reply(fault.status(), fault.details()),
                None => std::future::pending().await,
            },
        }
    }

    async fn refuse(self: Rc<Self>, error: CodecError) -> (ResponseHead, Body) {
        self.refused.borrow_mut().push(error);
        reply(error.status(), error.details())
    }

    fn head_cut(self: Rc<Self>) {
        self.cut.set(self.cut.get() + 1);
    }

    fn stream_refused(self: Rc<Self>, _: Reset) {}
    fn http2_stats(&self) -> Stats<Http2CodecStats> {
        unreachable!("HTTP/1 only")
    }
    fn count_bytes(&self, _: u64, _: u64) {}
    fn headers_dropped(&self, _: u32) {}
    fn protocol(&self, _: Version) {}
    fn closing(&self, reason: CloseReason) {
        self.closed.set(Some(reason));
    }
    fn drain_started(&self) {}
    fn active_streams(&self) -> u32 {
        0
    }
    fn idle_since(&self) -> Instant {
        Instant::now()
    }
}

fn options() -> CodecOptions {
    CodecOptions {
        codec: CodecType::Http1,
        h1: H1Options::default(),
        idle_timeout: None,
        max_connection_duration: None,
        safe_max_duration: false,
        headers_timeout: None,
        drain_timeout: Duration::from_secs(5),
        max_requests: None,
        delayed_close: Some(Duration::from_secs(5)),
        stream_idle_timeout: None,
        flush_timeout: None,
        h2: Default::default(),
    }
}

fn told(signal: &DrainSignal) -> impl Future<Output = ()> + use<> {
    let drain = signal.listen();
    async move { drain.wait().await }
}

/// Runs `client` against a served connection; both must come to an end.
fn with_client<F: Future<Output = ()>>(
    options: &CodecOptions,
    client: impl FnOnce(DuplexStream, Rc<Echo>, DrainSignal) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (stream, served) = tokio::io::duplex(4096);
        let handler = Rc::new(Echo::default());
        let signal = DrainSignal::default();
        let server = serve(
            Stream::Other(Box::pin(served)),
            BytesMut::new(),
            Scheme::Http,
            options,
            Box::pin(told(&signal)),
            handler.clone(),
        );
        let both = async { tokio::join!(server, client(stream, handler.clone(), signal)) };
        tokio::time::timeout(Duration::from_secs(60), both)
            .await
            .expect("it hangs");
    });
}

/// Reads until `text` has come.
async fn expect(stream: &mut DuplexStream, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let n = stream.read_buf(&mut seen).await.unwrap();
        let so_far = String::from_utf8_lossy(&seen);
        assert_ne!(n, 0, "closed before {text:?}, after {so_far:?}");
    }
    String::from_utf8(seen).unwrap()
}

/// Sends bytes, and returns what comes until the connection closes.
fn answer(options: &CodecOptions, parts: &[&[u8]]) -> (String, Rc<Echo>) {
    let (mut text, mut echo) = (String::new(), None);
    with_client(options, |mut stream, handler, _| {
        let (text, echo) = (&mut text, &mut echo);
        async move {
            for part in parts {
                // The server may have closed already.
                if stream.write_all(part).await.is_err() {
                    break;
                }
                yield_now().await;
            }
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            *text = String::from_utf8_lossy(&all).replace("date: now\r\n", "");
            *echo = Some(handler);
        }
    });
    (text, echo.unwrap())
}

const LAST: &str = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const LAST_ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[test]
fn a_body_nobody_reads_ends_the_connection() {
    let request = format!("POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc{LAST}");
    let (text, _) = answer(&options(), &[request.as_bytes()]);
    assert!(
        text.contains("connection: close\r\n") && text.ends_with("\r\n\r\nunread"),
        "{text}"
    );
}

#[test]
fn a_client_that_is_still_sending_reads_its_answer() {
    with_client(&options(), |mut stream, _, _| async move {
        let head = "POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let text = expect(&mut stream, "unread").await;
        assert!(text.contains("connection: close\r\n"), "{text}");
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    });
}

#[test]
fn broken_bodies_are_refused_and_end_the_connection() {
    for (body, status) in [
        ("zz\r\n", "400"),
        ("3\r\nabcd\r\n", "400"),
        (&*format!("0\r\na: {}\r\n\r\n", "x".repeat(70_000)), "431"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}{LAST}");
        let (text, _) = answer(&options(), &[request.as_bytes()]);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.contains("connection: close"), "{text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    }
}

#[test]
fn a_bad_head_is_refused_after_the_request_before_it() {
    let (text, echo) = answer(
        &options(),
        &[b"GET / HTTP/1.1\r\nhost: a\r\n\r\nBREW / HTTP/1.1\r\n\r\n"],
    );
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.ends_with("http1.codec_error"), "{text}");
    assert_eq!(*echo.refused.borrow(), [CodecError::Syntax]);
}

#[test]
fn informational_responses_come_first() {
    with_client(&options(), |mut stream, _, _| async move {
        let head = "POST /continue HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(expect(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"abc").await.unwrap();
        expect(&mut stream, "abc").await;
    });
}

#[test]
fn an_upgrade_takes_what_was_sent_with_it() {
    with_client(&options(), |mut stream, _, _| async move {
        let head = "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nearly ";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"late").await.unwrap();
        let text = expect(&mut stream, "early late").await;
        assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{text}");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    });
}

#[test]
fn a_client_that_goes_away_drops_its_request() {
    for request in [
        "GET /never HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /never HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
        "GET /never HTTP/1.1\r\nhost: a\r\n\r\nGET /pipelined",
    ] {
        let mut echo = None;
        with_client(&options(), |mut stream, handler, _| {
            echo = Some(handler);
            async move { stream.write_all(request.as_bytes()).await.unwrap() }
        });
        let echo = echo.unwrap();
        assert_eq!(
            (echo.dropped.get(), echo.closed.get()),
            (1, Some(CloseReason::Remote)),
            "{request:?}"
        );
    }
}

#[test]
fn a_head_cut_short_is_told() {
    for (bytes, cut) in [("", 0), ("GET / HT", 1), ("GET / HTTP/1.1\r\nhost: a\r\n", 1)] {
        let mut echo = None;
        with_client(&options(), |mut stream, handler, _| {
            echo = Some(handler);
            async move { stream.write_all(bytes.as_bytes()).await.unwrap() }
        });
        assert_eq!(echo.unwrap().cut.get(), cut, "{bytes:?}");
    }
}

#[test]
fn only_an_unfinished_head_runs_into_its_timeout() {
    let options = CodecOptions {
        headers_timeout: Some(Duration::from_millis(30)),
        ..options()
    };
    with_client(&options, |mut stream, handler, _| async move {
        let post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        stream.write_all(post).await.unwrap();
        expect(&mut stream, "abc").await;
        // Longer than the timeout: nothing is owed.
        tokio::time::sleep(Duration::from_millis(90)).await;
        stream.write_all(post).await.unwrap();
        expect(&mut stream, "abc").await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        expect(&mut stream, "request_header_timeout").await;
        assert_eq!(*handler.refused.borrow(), [CodecError::HeadersTimeout]);
    });
}

#[test]
fn idle_connections_end_at_their_timeout_and_when_drained() {
    let timed = CodecOptions {
        idle_timeout: Some(Duration::from_millis(30)),
        ..options()
    };
    with_client(&timed, |mut stream, handler, _| async move {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        expect(&mut stream, "200 OK").await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(handler.closed.get(), Some(CloseReason::Idle));
    });
    let drained = CodecOptions {
        drain_timeout: Duration::from_millis(30),
        ..options()
    };
    with_client(&drained, |mut stream, handler, signal| async move {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        expect(&mut stream, "200 OK").await;
        signal.start();
        // A request that crosses with the drain is answered.
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        expect(&mut stream, "200 OK").await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(handler.closed.get(), Some(CloseReason::Drain));
    });
    // Whoever has asked for nothing is not given time.
    with_client(&options(), |mut stream, handler, signal| async move {
        signal.start();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(handler.closed.get(), Some(CloseReason::Drain));
    });
}

#[test]
fn a_connection_that_waits_holds_no_buffer() {
    let (mut client, served) = tokio::io::duplex(64 * 1024);
    let mut wire = Wire::new(Stream::Other(Box::pin(served)), BytesMut::new(), H1Options::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        client
            .write_all(b"\r\nPOST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")
            .await
            .unwrap();
        let head = poll_fn(|cx| wire.poll_head(cx)).await.unwrap();
        assert!(head.ends_with(b"\r\n\r\n"));
        wire.start_body(Length::Exact(5));
        while !wire.is_request_done() {
            poll_fn(|cx| wire.poll_body(cx)).await.unwrap();
        }
        wire.end_request();
        assert_eq!(wire.buffered(), 0);
        poll_fn(|cx| {
            assert!(wire.poll_head(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(wire.buffered(), 0);
    });
}

#[test]
fn a_large_response_goes_through_a_small_window() {
    let (text, _) = answer(
        &options(),
        &[b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"],
    );
    assert_eq!(text.matches('x').count(), 1 << 20);
}

/// A request, and the bytes that the answer to it must be.
fn exchange() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let body = || vec(any::<u8>(), 0..2000);
    let answer = |body: &[u8]| {
        let mut text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        text.extend_from_slice(body);
        text
    };
    prop_oneof![
        Just((b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), Vec::new())),
        Just((b"\r\n\nGET / HTTP/1.1\nhost: a\n\n".to_vec(), Vec::new())),
        body().prop_map(|body| {
            let mut text = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            text.extend_from_slice(&body);
            (text, body)
        }),
        (body(), 1usize..500).prop_map(|(body, size)| {
            let mut text = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(size) {
                text.extend_from_slice(format!("{:x};e\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\nt: v\r\n\r\n");
            (text, body)
        }),
    ]
    .prop_map(move |(request, body)| {
        let answer = answer(&body);
        (request, answer)
    })
}

fn cut<'a>(text: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|i| i.index(text.len() + 1)).collect();
    places.sort_unstable();
    let mut from = 0;
    let mut parts = Vec::new();
    for place in places.into_iter().chain([text.len()]) {
        parts.push(&text[from..place]);
        from = place;
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn requests_are_answered_in_order_however_they_arrive(
        exchanges in vec(exchange(), 0..6),
        places in vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let mut requests: Vec<u8> = exchanges.iter().flat_map(|(request, _)| request.clone()).collect();
        requests.extend_from_slice(LAST.as_bytes());
        let mut answers: Vec<u8> = exchanges.iter().flat_map(|(_, answer)| answer.clone()).collect();
        answers.extend_from_slice(LAST_ANSWER.as_bytes());
        let (text, echo) = answer(&options(), &cut(&requests, &places));
        prop_assert_eq!(text, String::from_utf8_lossy(&answers).replace("date: now\r\n", ""));
        prop_assert!(echo.refused.borrow().is_empty());
    }

    /// Neither panics nor hangs: the harness ends both sides within its time.
    #[test]
    fn any_bytes_come_to_an_end(
        pieces in vec(prop_oneof![
            4 => prop::sample::select(vec![
                "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "POST /unread HTTP/1.1\r\n", "host: a\r\n", "\r\n", "\r\n",
                "\n", "\r", "content-length: 3\r\n", "transfer-encoding: chunked\r\n", "expect: 100-continue\r\n",
                "3\r\nabc\r\n", "0\r\n\r\n", "abc", "connection: upgrade\r\nupgrade: x\r\n", "connection: close\r\n",
                "CONNECT a:1 HTTP/1.1\r\n", "GET http://b/ HTTP/1.1\r\n", "a: b\r\n c\r\n", "t: \x00\r\n", ":", " ",
            ]).prop_map(|s| s.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..20),
        ], 0..30),
        places in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let text = pieces.concat();
        with_client(&options(), |mut stream, _, _| async move {
            for part in cut(&text, &places) {
                if stream.write_all(part).await.is_err() {
                    return;
                }
                yield_now().await;
            }
            let mut some = [0; 256];
            // What there is at once; then the client goes away.
            let _ = tokio::time::timeout(Duration::ZERO, stream.read(&mut some)).await;
        });
    }
}

/// A connection that waits keeps what its task is made of. When this fails, look for what came to live across an
/// await in [`serve`], and box it.
#[test]
fn a_connection_that_waits_is_small() {
    let (_client, served) = tokio::io::duplex(64);
    let (options, signal) = (options(), DrainSignal::default());
    let task = serve(
        Stream::Other(Box::pin(served)),
        BytesMut::new(),
        Scheme::Http,
        &options,
        Box::pin(told(&signal)),
        Rc::new(Echo::default()),
    );
    assert!(std::mem::size_of_val(&task) <= 1024, "{}", std::mem::size_of_val(&task));
}
