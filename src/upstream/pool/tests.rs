mod identities;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::{server::conn, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::spawn_local,
};
use xds_protos::{
    envoy::config::{
        cluster::v3::{CircuitBreakers, Cluster, circuit_breakers::Thresholds},
        core::v3::{Http2ProtocolOptions, HttpProtocolOptions},
    },
    google::protobuf as pb,
};

use super::*;
use crate::{
    http::{Body, RequestHead, Scheme},
    upstream::{
        ConnectFailure, LbContext, UpstreamFailure, UpstreamResponse, WorkerCluster,
        tests::{add, local, server, static_cluster},
    },
};

/// A backend that counts its connections and answers `hello`; requests to `/wait` are held until it is told.
#[derive(Default)]
struct Backend {
    connections: Cell<usize>,
    release: Notify,
    waiting: Cell<usize>,
    tasks: RefCell<Vec<tokio::task::AbortHandle>>,
}

impl Backend {
    async fn start(http2: bool) -> (Rc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Rc::new(Self::default());
        let this = backend.clone();
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                this.connections.set(this.connections.get() + 1);
                let me = this.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let me = me.clone();
                    async move {
                        if request.uri().path() == "/wait" {
                            me.waiting.set(me.waiting.get() + 1);
                            me.release.notified().await;
                        }
                        let _ = request.into_body().collect().await;
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
                    }
                });
                let io = TokioIo::new(stream);
                let task = match http2 {
                    true => spawn_local(async move {
                        let _ = conn::http2::Builder::new(LocalExecutor)
                            .serve_connection(io, service)
                            .await;
                    }),
                    false => spawn_local(async move {
                        let _ = conn::http1::Builder::new().serve_connection(io, service).await;
                    }),
                };
                this.tasks.borrow_mut().push(task.abort_handle());
            }
        });
        (backend, address)
    }

    /// Closes all connections.
    fn hang_up(&self) {
        self.tasks.borrow_mut().drain(..).for_each(|t| t.abort());
    }
}

#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

fn head(path: &'static str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: Some(HeaderValue::from_static("test")),
        path: Some(path.parse().unwrap()),
        protocol: None,
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
        spelling: None,
    }
}

async fn send(cluster: &Rc<WorkerCluster>, path: &'static str) -> Result<UpstreamResponse, UpstreamFailure> {
    let host = cluster.pick(&LbContext::default()).unwrap();
    let lease = cluster.http(&host, &PoolOptions::default()).acquire().await?;
    lease.send(head(path), Body::Empty, &mut |_| {}).await
}

async fn get(cluster: &Rc<WorkerCluster>, path: &'static str) -> (StatusCode, Bytes) {
    let response = send(cluster, path).await.unwrap();
    (response.head.status, response.body.collect().await.unwrap().to_bytes())
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn http2(mut proto: Cluster, streams: u32) -> Cluster {
    proto.http2_protocol_options = Some(Http2ProtocolOptions {
        max_concurrent_streams: Some(pb::UInt32Value { value: streams }),
        ..Default::default()
    });
    proto
}

fn limits(mut proto: Cluster, connections: u32, pending: u32, requests: u32) -> Cluster {
    let value = |value| Some(pb::UInt32Value { value });
    proto.circuit_breakers = Some(CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: value(connections),
            max_pending_requests: value(pending),
            max_requests: value(requests),
            ..Default::default()
        }],
        ..Default::default()
    });
    proto
}

#[test]
fn http1_connections_are_reused() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let server = server();
        let cluster = add(&server, static_cluster(&[address]));
        for _ in 0..10 {
            assert_eq!(get(&cluster, "/").await, (StatusCode::OK, Bytes::from_static(b"hello")));
        }
        assert_eq!(backend.connections.get(), 1);
        let counter = |name: &str| server.stats.counter_value(&format!("cluster.test.{name}")).unwrap();
        let gauge = |name: &str| server.stats.gauge_value(&format!("cluster.test.{name}")).unwrap();
        assert_eq!(
            (counter("upstream_cx_total"), counter("upstream_cx_http1_total")),
            (1, 1)
        );
        assert_eq!(
            (counter("upstream_rq_total"), counter("upstream_rq_pending_total")),
            (10, 1)
        );
        assert_eq!((gauge("upstream_cx_active"), gauge("upstream_rq_active")), (1, 0));
        assert_eq!(gauge("upstream_rq_pending_active"), 0);
        assert!(counter("upstream_cx_rx_bytes_total") > 50);
    });
}

#[test]
fn a_stale_connection_is_replaced() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let cluster = add(&server(), static_cluster(&[address]));
        get(&cluster, "/").await;
        // The connection's task has not seen the close when the next request takes the connection.
        let host = cluster.pick(&LbContext::default()).unwrap();
        let lease = cluster.http(&host, &PoolOptions::default()).acquire().await.unwrap();
        backend.hang_up();
        until(|| backend.tasks.borrow().is_empty()).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let response = lease.send(head("/"), Body::Empty, &mut |_| {}).await.unwrap();
        assert_eq!(response.head.status, StatusCode::OK);
        assert_eq!(backend.connections.get(), 2);
    });
}

#[test]
fn requests_per_connection_are_limited() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let mut proto = static_cluster(&[address]);
        proto.common_http_protocol_options = Some(HttpProtocolOptions {
            max_requests_per_connection: Some(pb::UInt32Value { value: 2 }),
            ..Default::default()
        });
        let server = server();
        let cluster = add(&server, proto);
        for _ in 0..5 {
            get(&cluster, "/").await;
        }
        assert_eq!(backend.connections.get(), 3);
        let counter = |name: &str| server.stats.counter_value(&format!("cluster.test.{name}")).unwrap();
        assert_eq!(counter("upstream_cx_max_requests"), 2);
        until(|| counter("upstream_cx_destroy_local") == 2).await;
    });
}

#[test]
fn breakers_overflow() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let server = server();
        let cluster = add(&server, limits(static_cluster(&[address]), 1, 1, 1024));
        let (first, second) = (cluster.clone(), cluster.clone());
        let held = spawn_local(async move { get(&first, "/wait").await.0 });
        until(|| backend.waiting.get() == 1).await;
        let queued = spawn_local(async move { get(&second, "/").await.0 });
        let gauge = |name: &str| server.stats.gauge_value(&format!("cluster.test.{name}")).unwrap();
        until(|| gauge("upstream_rq_pending_active") == 1).await;
        assert_eq!(gauge("circuit_breakers.default.cx_open"), 1);
        assert_eq!(gauge("circuit_breakers.default.rq_pending_open"), 1);
        let refused = send(&cluster, "/").await.err().unwrap();
        assert!(matches!(refused, UpstreamFailure::Connect(ConnectFailure::Overflow)));
        backend.release.notify_one();
        assert_eq!(held.await.unwrap(), StatusCode::OK);
        assert_eq!(queued.await.unwrap(), StatusCode::OK);
        assert_eq!(backend.connections.get(), 1);
        let counter = |name: &str| server.stats.counter_value(&format!("cluster.test.{name}")).unwrap();
        assert_eq!(
            (counter("upstream_rq_pending_overflow"), counter("upstream_cx_overflow")),
            (1, 1)
        );
        assert_eq!(gauge("circuit_breakers.default.rq_pending_open"), 0);
    });
}

#[test]
fn giving_up_frees_the_place_in_the_queue() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let server = server();
        let cluster = add(&server, limits(static_cluster(&[address]), 1, 1, 1024));
        let first = cluster.clone();
        let held = spawn_local(async move { get(&first, "/wait").await });
        until(|| backend.waiting.get() == 1).await;
        let second = cluster.clone();
        let queued = spawn_local(async move { get(&second, "/").await });
        let gauge = |name: &str| server.stats.gauge_value(&format!("cluster.test.{name}")).unwrap();
        until(|| gauge("upstream_rq_pending_active") == 1).await;
        queued.abort();
        until(|| gauge("upstream_rq_pending_active") == 0).await;
        // Cancelling the request in flight closes its connection.
        held.abort();
        until(|| gauge("upstream_cx_active") == 0).await;
        assert_eq!(gauge("upstream_rq_active"), 0);
        let counter = |name: &str| server.stats.counter_value(&format!("cluster.test.{name}")).unwrap();
        assert_eq!(counter("upstream_rq_cancelled"), 1);
        assert_eq!(
            (
                counter("upstream_cx_destroy_local"),
                counter("upstream_cx_destroy_local_with_active_rq")
            ),
            (1, 1)
        );
    });
}

#[test]
fn refused_connections_fail_in_envoys_words() {
    local(async {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let server = server();
        let cluster = add(&server, static_cluster(&[free]));
        let failure = send(&cluster, "/").await.err().unwrap();
        assert_eq!(failure.reset_reason(), "remote connection failure");
        assert_eq!(
            failure.transport_failure_reason(),
            Some("delayed connect error: Connection refused")
        );
        let counter = |name: &str| server.stats.counter_value(&format!("cluster.test.{name}")).unwrap();
        assert_eq!(
            (
                counter("upstream_cx_connect_fail"),
                counter("upstream_cx_destroy_remote")
            ),
            (1, 1)
        );
        assert_eq!(counter("upstream_rq_pending_failure_eject"), 1);
        let host = cluster.pick(&LbContext::default()).unwrap();
        assert_eq!(host.stats.cx_connect_fail.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(host.stats.cx_active.load(std::sync::atomic::Ordering::Relaxed), 0);
    });
}

#[test]
fn http2_streams_share_connections() {
    local(async {
        let (backend, address) = Backend::start(true).await;
        let server = server();
        let cluster = add(&server, http2(static_cluster(&[address]), 4));
        let requests: Vec<_> = (0..10)
            .map(|_| {
                let cluster = cluster.clone();
                spawn_local(async move { get(&cluster, "/wait").await })
            })
            .collect();
        until(|| backend.waiting.get() == 10).await;
        assert_eq!(backend.connections.get(), 3);
        backend.release.notify_waiters();
        for request in requests {
            assert_eq!(request.await.unwrap(), (StatusCode::OK, Bytes::from_static(b"hello")));
        }
        get(&cluster, "/").await;
        assert_eq!(backend.connections.get(), 3);
        let gauge = |name: &str| server.stats.gauge_value(&format!("cluster.test.{name}")).unwrap();
        assert_eq!((gauge("upstream_cx_active"), gauge("upstream_rq_active")), (3, 0));
        backend.hang_up();
        until(|| gauge("upstream_cx_active") == 0).await;
        assert_eq!(get(&cluster, "/").await.0, StatusCode::OK);
    });
}

#[test]
fn draining_lets_requests_finish() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let server = server();
        let cluster = add(&server, static_cluster(&[address]));
        let busy = cluster.clone();
        let held = spawn_local(async move { get(&busy, "/wait").await.0 });
        get(&cluster, "/").await;
        until(|| backend.waiting.get() == 1).await;
        let gauge = |name: &str| server.stats.gauge_value(&format!("cluster.test.{name}")).unwrap();
        assert_eq!(gauge("upstream_cx_active"), 2);
        cluster.drain();
        until(|| gauge("upstream_cx_active") == 1).await;
        backend.release.notify_one();
        assert_eq!(held.await.unwrap(), StatusCode::OK);
        until(|| gauge("upstream_cx_active") == 0).await;
    });
}

#[test]
fn upgrades_hand_over_the_stream() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                seen.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
            stream.write_all(answer).await.unwrap();
            let mut buffer = [0; 4];
            stream.read_exact(&mut buffer).await.unwrap();
            stream.write_all(&buffer).await.unwrap();
        });
        let cluster = add(&server(), static_cluster(&[address]));
        let host = cluster.pick(&LbContext::default()).unwrap();
        let lease = cluster.http(&host, &PoolOptions::default()).acquire().await.unwrap();
        let mut head = head("/");
        head.headers.insert("connection", HeaderValue::from_static("upgrade"));
        head.headers.insert("upgrade", HeaderValue::from_static("echo"));
        let response = lease.send(head, Body::Empty, &mut |_| {}).await.unwrap();
        assert_eq!(response.head.status, StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = response.upgrade.unwrap().await.unwrap();
        let mut early = [0; 5];
        stream.read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"early");
        stream.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"ping");
    });
}
