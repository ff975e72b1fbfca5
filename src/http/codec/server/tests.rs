use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::serve;
use crate::{
    http::{
        Body, ResponseHead, Scheme,
        codec::{CloseReason, CodecOptions, CodecRequest, CodecType, Handler},
    },
    net::Stream,
    server::DrainSignal,
};

thread_local! {
    /// Connections parked on this thread, counted by the code under test.
    pub(super) static PARKED: Cell<u32> = const { Cell::new(0) };
}

/// Answers each request with its path.
struct Echo {
    idle_since: Cell<Instant>,
    closed: Cell<Option<CloseReason>>,
}

impl Handler for Echo {
    async fn handle(self: Rc<Self>, request: CodecRequest) -> (ResponseHead, Body) {
        self.idle_since.set(Instant::now());
        (
            ResponseHead::new(StatusCode::OK),
            Body::full(request.head.path().to_owned()),
        )
    }

    fn protocol_error(&self, _: StatusCode, _: &'static str) {}
    fn count_bytes(&self, _: u64, _: u64) {}
    fn protocol(&self, _: Version) {}
    fn closing(&self, reason: CloseReason) {
        self.closed.set(Some(reason));
    }
    fn active_streams(&self) -> u32 {
        0
    }
    fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }
}

fn options(idle_timeout: Option<Duration>) -> CodecOptions {
    CodecOptions {
        codec: CodecType::Auto,
        max_header_bytes: 60 * 1024,
        max_headers: 100,
        idle_timeout,
        max_connection_duration: None,
        headers_timeout: None,
        drain_timeout: Duration::from_secs(5),
        max_requests: None,
        title_case: false,
        preserve_case: false,
        server: None,
        h2: Default::default(),
    }
}

/// Runs `client` against a served connection.
fn with_client<F: Future<Output = ()>>(
    idle: Option<Duration>,
    client: impl FnOnce(TcpStream, Rc<Echo>, DrainSignal) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let handler = Rc::new(Echo {
            idle_since: Cell::new(Instant::now()),
            closed: Cell::new(None),
        });
        let (signal, served) = (DrainSignal::default(), handler.clone());
        let drain = signal.listen();
        tokio::task::spawn_local(async move {
            serve(Stream::Tcp(accepted), None, Scheme::Http, &options(idle), drain, served).await;
        });
        tokio::time::timeout(Duration::from_secs(20), client(stream, handler, signal))
            .await
            .unwrap();
    });
}

/// Reads until `text` has come.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "closed before {text}");
    }
}

async fn until_parked(times: u32) {
    while PARKED.get() < times {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_parked_connection_serves_again() {
    with_client(None, |mut stream, _, _| async move {
        for turn in 1..=3 {
            let path = format!("/turn{turn}");
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes())
                .await
                .unwrap();
            expect(&mut stream, &path).await;
            until_parked(turn).await;
        }
    });
}

#[test]
fn a_part_of_the_next_head_is_never_parked_away() {
    with_client(None, |mut stream, handler, _| async move {
        stream
            .write_all(b"GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HT")
            .await
            .unwrap();
        expect(&mut stream, "/one").await;
        // Long idle, as far as the timers can tell.
        handler.idle_since.set(Instant::now() - Duration::from_secs(60));
        tokio::time::sleep(super::PARK_AFTER * 3).await;
        assert_eq!(PARKED.get(), 0);
        stream.write_all(b"TP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        expect(&mut stream, "/two").await;
    });
}

#[test]
fn a_parked_connection_ends_at_its_idle_timeout() {
    with_client(Some(Duration::from_millis(150)), |mut stream, handler, _| async move {
        stream.write_all(b"GET /one HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        expect(&mut stream, "/one").await;
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        assert_eq!((PARKED.get(), handler.closed.get()), (1, Some(CloseReason::Idle)));
    });
}

#[test]
fn a_parked_connection_ends_when_drained() {
    with_client(None, |mut stream, handler, signal| async move {
        stream.write_all(b"GET /one HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        expect(&mut stream, "/one").await;
        until_parked(1).await;
        signal.start();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        assert_eq!(handler.closed.get(), Some(CloseReason::Drain));
    });
}
