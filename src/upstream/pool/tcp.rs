//! Connections of one's own: TCP proxying. Counted and limited like pooled ones.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::{
    PoolOptions, UpstreamConnInfo,
    connect::{self, Dial},
    io::Counted,
    open::millis,
};
use crate::{
    net::Stream,
    server::{InternalListeners, ServerContext},
    upstream::{ClusterInfo, ConnectFailure, Host, ResourcePriority},
};

/// A connection of one's own.
pub struct TcpLease {
    /// The byte stream, behind its transport socket.
    pub stream: Stream,
    /// Its facts.
    pub conn: Arc<UpstreamConnInfo>,
    /// Keeps it counted: hold it as long as the stream.
    pub counted: TcpCounted,
}

impl TcpLease {
    /// The byte stream as that of one request, whose bytes are counted, until it is dropped.
    pub fn into_request(self) -> Stream {
        let mut counted = self.counted;
        // Whoever drops it closes it, unless it broke.
        counted.closed_locally = true;
        counted.of_request = true;
        Stream::Other(Box::pin(RequestStream {
            stream: Counted::new(self.stream, counted.cluster.clone()),
            counted,
            shut: false,
        }))
    }
}

/// A connection that carries one request's bytes and nothing else.
struct RequestStream {
    stream: Counted,
    counted: TcpCounted,
    /// The upstream was told that there is nothing more to come.
    shut: bool,
}

impl AsyncRead for RequestStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match read {
            Poll::Ready(Err(_)) => self.counted.broke(),
            // Both sides are done, and the upstream was the last.
            Poll::Ready(Ok(())) if self.shut && buf.filled().len() == before => self.counted.closed_locally = false,
            _ => {}
        }
        read
    }
}

impl AsyncWrite for RequestStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Err(_)) = written {
            self.counted.broke();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The hold of a connection on breakers and statistics.
pub struct TcpCounted {
    cluster: Arc<ClusterInfo>,
    host: Arc<Host>,
    priority: ResourcePriority,
    started: Instant,
    /// Whether it carries its request: from when it is connected.
    busy: bool,
    /// Set it when this side closes first: decides between `destroy_local` and `destroy_remote`.
    pub closed_locally: bool,
    /// It carries the bytes of an HTTP request, which ends before it does, unless it breaks.
    of_request: bool,
    /// Set when the host's failure ended it.
    severed: Arc<AtomicBool>,
}

impl TcpCounted {
    /// Counts bytes that were sent after their client had gone.
    pub fn flushed(&self, bytes: u64) {
        self.cluster.stats.local().upstream_cx_tx_bytes_total.add(bytes);
    }

    /// The upstream broke it, and the request with it.
    fn broke(&mut self) {
        self.closed_locally = false;
        self.of_request = false;
    }

    fn new(cluster: Arc<ClusterInfo>, host: Arc<Host>, priority: ResourcePriority) -> Self {
        let stats = cluster.stats.local();
        stats.upstream_cx_total.inc();
        stats.upstream_cx_active.inc();
        host.stats.cx_total.fetch_add(1, Relaxed);
        host.stats.cx_active.fetch_add(1, Relaxed);
        cluster.resources(priority).connections.inc();
        Self {
            cluster,
            host,
            priority,
            started: Instant::now(),
            busy: false,
            closed_locally: false,
            of_request: false,
            severed: Arc::default(),
        }
    }

    /// It is connected and carries the one request it is for.
    fn begin(&mut self) -> Result<(), ConnectFailure> {
        let stats = self.cluster.stats.local();
        let breakers = self.cluster.resources(self.priority);
        if !breakers.requests.can_create() {
            stats.upstream_rq_active_overflow.inc();
            return Err(ConnectFailure::TooManyRequests);
        }
        breakers.request_starts();
        stats.upstream_rq_total.inc();
        stats.upstream_rq_active.inc();
        self.host.stats.rq_total.fetch_add(1, Relaxed);
        self.host.stats.rq_active.fetch_add(1, Relaxed);
        self.busy = true;
        Ok(())
    }
}

impl Drop for TcpCounted {
    fn drop(&mut self) {
        let stats = self.cluster.stats.local();
        let breakers = self.cluster.resources(self.priority);
        if self.busy {
            stats.upstream_rq_active.dec();
            self.host.stats.rq_active.fetch_sub(1, Relaxed);
            breakers.request_ends();
        }
        stats.upstream_cx_active.dec();
        stats.upstream_cx_destroy.inc();
        let severed = self.severed.load(Relaxed);
        let locally = self.closed_locally || severed;
        match locally {
            true => stats.upstream_cx_destroy_local.inc(),
            false => stats.upstream_cx_destroy_remote.inc(),
        }
        if severed || self.busy && !self.of_request {
            // What it carries is over only with the connection.
            stats.upstream_cx_destroy_with_active_rq.inc();
            match locally {
                true => stats.upstream_cx_destroy_local_with_active_rq.inc(),
                false => stats.upstream_cx_destroy_remote_with_active_rq.inc(),
            }
        }
        stats.upstream_cx_length_ms.record(millis(self.started.elapsed()));
        self.host.stats.cx_active.fetch_sub(1, Relaxed);
        breakers.connection_ends();
    }
}

/// Somebody who waits for a connection.
struct Waiting<'a> {
    cluster: &'a ClusterInfo,
    host: &'a Host,
    priority: ResourcePriority,
}

impl<'a> Waiting<'a> {
    /// Begins to wait, unless too many do.
    fn new(cluster: &'a ClusterInfo, host: &'a Host, priority: ResourcePriority) -> Result<Self, ConnectFailure> {
        let stats = cluster.stats.local();
        let pending = &cluster.resources(priority).pending_requests;
        if !pending.can_create() {
            stats.upstream_rq_pending_overflow.inc();
            return Err(ConnectFailure::Overflow);
        }
        pending.inc();
        stats.upstream_rq_pending_total.inc();
        stats.upstream_rq_pending_active.inc();
        host.stats.rq_pending_active.fetch_add(1, Relaxed);
        Ok(Self {
            cluster,
            host,
            priority,
        })
    }

    /// Returns when a connection may be opened: a host that has none gets one whatever the breakers say.
    async fn room(&self) {
        let breakers = self.cluster.resources(self.priority);
        let open = || self.host.stats.cx_active.load(Relaxed);
        let allowed = || breakers.connections.can_create() && open() < breakers.connections_per_host;
        if allowed() {
            return;
        }
        self.cluster.stats.local().upstream_cx_overflow.inc();
        loop {
            let freed = breakers.connection_freed();
            if allowed() || open() == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.cluster.resources(self.priority).pending_requests.dec();
        self.cluster.stats.local().upstream_rq_pending_active.dec();
        self.host.stats.rq_pending_active.fetch_sub(1, Relaxed);
    }
}

/// A stream that ends when its host fails (`close_connections_on_host_health_failure`).
struct Severed {
    stream: Stream,
    failed: oneshot::Receiver<Infallible>,
    severed: Arc<AtomicBool>,
}

impl Severed {
    /// Whether the host has failed; the task is woken when it does.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match Pin::new(&mut self.failed).poll(cx) {
            Poll::Ready(_) => {
                self.severed.store(true, Relaxed);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Severed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl TcpLease {
    /// Makes the stream end as soon as the sender of `failed` is dropped.
    pub(in crate::upstream) fn sever_when(mut self, failed: oneshot::Receiver<Infallible>) -> Self {
        let stream = self.stream;
        self.stream = Stream::Other(Box::pin(Severed {
            stream,
            failed,
            severed: self.counted.severed.clone(),
        }));
        self
    }
}

/// Opens a connection.
pub async fn connect(
    cluster: Arc<ClusterInfo>,
    host: Arc<Host>,
    server: &ServerContext,
    internal: &InternalListeners,
    options: &PoolOptions,
) -> Result<TcpLease, ConnectFailure> {
    let waiting = Waiting::new(&cluster, &host, options.priority)?;
    waiting.room().await;
    let stats = cluster.stats.local();
    let mut counted = TcpCounted::new(cluster.clone(), host.clone(), options.priority);
    let id = server.next_connection_id();
    let dial = Dial {
        cluster: &cluster,
        host: &host,
        options: options.transport.as_deref(),
        alpn: &[],
        internal,
        source: options.source,
        shared: options.shared.as_deref(),
        told: None,
    };
    match connect::connect(dial, id).await {
        Ok(connected) => {
            drop(waiting);
            stats.upstream_cx_connect_ms.record(millis(connected.info.connect_time));
            counted.begin()?;
            Ok(TcpLease {
                stream: connected.stream,
                conn: Arc::new(connected.info),
                counted,
            })
        }
        Err(failure) => {
            if failure == ConnectFailure::Timeout {
                stats.upstream_cx_connect_timeout.inc();
            }
            stats.upstream_cx_connect_fail.inc();
            stats.upstream_rq_pending_failure_eject.inc();
            host.stats.cx_connect_fail.fetch_add(1, Relaxed);
            Err(failure)
        }
    }
}
