use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use http::{StatusCode, Version};
use http_body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{LocalSet, yield_now},
};

use super::*;
use crate::{
    http::{
        BodyError, ResponseHead,
        codec::{CodecError, CodecType, H1Options},
    },
    server::DrainSignal,
    stats::{Stats, StatsConfig, Store},
};

/// Answers each request with a body that does not end, and counts.
struct Endless {
    stats: Stats<Http2CodecStats>,
    requests: Cell<u32>,
    frames: Rc<Cell<u32>>,
    refused: RefCell<Vec<Reset>>,
    closed: Cell<Option<CloseReason>>,
}

struct Zeros(Rc<Cell<u32>>);

impl http_body::Body for Zeros {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.set(self.0.get() + 1);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 16384])))))
    }
}

impl Handler for Endless {
    async fn handle(self: Rc<Self>, _: CodecRequest) -> (ResponseHead, Body) {
        self.requests.set(self.requests.get() + 1);
        (
            ResponseHead::new(StatusCode::OK),
            Body::boxed(Zeros(self.frames.clone())),
        )
    }
    async fn refuse(self: Rc<Self>, _: CodecError) -> (ResponseHead, Body) {
        unreachable!("HTTP/1 only")
    }
    fn head_cut(self: Rc<Self>) {}
    fn stream_refused(self: Rc<Self>, reset: Reset) {
        self.refused.borrow_mut().push(reset);
    }
    fn http2_stats(&self) -> Stats<Http2CodecStats> {
        self.stats.clone()
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
        codec: CodecType::Http2,
        h1: H1Options::default(),
        idle_timeout: None,
        max_connection_duration: None,
        safe_max_duration: false,
        headers_timeout: None,
        drain_timeout: Duration::from_secs(5),
        max_requests: None,
        delayed_close: None,
        stream_idle_timeout: None,
        flush_timeout: None,
        h2: Default::default(),
    }
}

/// Runs `client` against a served connection; the test ends with the client.
fn with_client<F: Future<Output = ()>>(client: impl FnOnce(DuplexStream, Rc<Endless>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let handler = Rc::new(Endless {
            stats: Store::new(StatsConfig::default(), 1).root().block(),
            requests: Cell::new(0),
            frames: Rc::default(),
            refused: RefCell::default(),
            closed: Cell::new(None),
        });
        let signal = DrainSignal::default();
        let (drain, served) = (signal.listen(), handler.clone());
        let server = tokio::task::spawn_local(async move {
            let stream = Stream::Other(Box::pin(far));
            let told = Box::pin(async move { drain.wait().await });
            serve(stream, Bytes::new(), Scheme::Http, &options(), told, served).await;
        });
        client(near, handler).await;
        server.abort();
    });
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The preface, and SETTINGS with this initial window.
fn preface(window: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut setting = vec![0, 4];
    setting.extend_from_slice(&window.to_be_bytes());
    bytes.extend(frame(4, 0, 0, &setting));
    bytes
}

/// `GET http://a/`
const GET: &[u8] = b"\x82\x86\x84\x01\x01a";

/// Writes all and reads until the server closes; the code of its last GOAWAY.
async fn until_closed(client: DuplexStream, bytes: Vec<u8>) -> Option<u32> {
    let (mut read, mut write) = tokio::io::split(client);
    let mut came = Vec::new();
    // The server may close while this side still has something to say.
    let (_, _) = tokio::join!(write.write_all(&bytes), read.read_to_end(&mut came));
    let mut code = None;
    frames::Scanner::new(0).feed(&came, |frame| {
        if frame.kind == frames::kind::GOAWAY {
            code = Some(frame.code);
        }
    });
    code
}

const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn ten_thousand_streams_that_are_reset_at_once_end_the_connection() {
    with_client(|client, handler| async move {
        let mut bytes = preface(65535);
        for i in 0..10_000 {
            bytes.extend(frame(1, 5, 2 * i + 1, GET));
            bytes.extend(frame(3, 0, 2 * i + 1, &8u32.to_be_bytes()));
        }
        assert_eq!(until_closed(client, bytes).await, Some(ENHANCE_YOUR_CALM));
        assert!(handler.requests.get() < 2_000, "{} requests", handler.requests.get());
    });
}

#[test]
fn a_header_block_without_an_end_ends_the_connection() {
    with_client(|client, handler| async move {
        let mut bytes = preface(65535);
        bytes.extend(frame(1, 1, 1, GET));
        for _ in 0..10_000 {
            bytes.extend(frame(9, 0, 1, b"\x00\x01x\x01y"));
        }
        assert_eq!(until_closed(client, bytes).await, Some(ENHANCE_YOUR_CALM));
        assert_eq!(handler.requests.get(), 0);
        assert_eq!(handler.closed.get(), Some(CloseReason::ProtocolError));
    });
}

#[test]
fn a_client_that_pings_and_does_not_read_is_not_read_either() {
    for kind in [6, 4] {
        with_client(|mut client, _| async move {
            client.write_all(&preface(65535)).await.unwrap();
            let flood: Vec<u8> = match kind {
                6 => frame(6, 0, 0, &[0; 8]),
                _ => frame(4, 0, 0, &[]),
            }
            .repeat(100);
            let mut taken = 0;
            // As long as anything moves, however little.
            let mut stuck = 0;
            while stuck < 100 {
                let rest = &flood[taken % flood.len()..];
                let written = tokio::select! {
                    biased;
                    n = client.write(rest) => n.unwrap(),
                    () = yield_now() => 0,
                };
                taken += written;
                stuck = if written > 0 { 0 } else { stuck + 1 };
                assert!(taken < 4 << 20, "the server queues answers without a limit");
            }
        });
    }
}

#[test]
fn a_client_that_does_not_open_its_window_gets_nothing_buffered() {
    with_client(|mut client, handler| async move {
        let mut bytes = preface(0);
        for i in 0..50 {
            bytes.extend(frame(1, 5, 2 * i + 1, GET));
        }
        client.write_all(&bytes).await.unwrap();
        while handler.requests.get() < 50 {
            yield_now().await;
        }
        for _ in 0..100 {
            yield_now().await;
        }
        // One frame of each waits for the window.
        assert_eq!(handler.frames.get(), 50);
    });
}

#[test]
fn floods_of_what_carries_nothing_end_the_connection_without_a_word() {
    let data = |_| frame(0, 0, 1, b"");
    let priority = |_| frame(2, 0, 1, &[0, 0, 0, 0, 1]);
    let update = |_| frame(8, 0, 0, &1u32.to_be_bytes());
    type Flood<'a> = (&'a dyn Fn(u32) -> Vec<u8>, u32);
    let floods: [Flood<'_>; 3] = [(&data, 2), (&priority, 201), (&update, 8)];
    for (flood, enough) in floods {
        with_client(|client, handler| async move {
            let mut bytes = preface(0);
            // Not the end of its body.
            bytes.extend(frame(1, 4, 1, GET));
            for i in 0..enough {
                bytes.extend(flood(i));
            }
            assert_eq!(until_closed(client, bytes).await, None);
            assert_eq!(handler.closed.get(), Some(CloseReason::Local));
        });
    }
}
