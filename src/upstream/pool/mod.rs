//! Connection pools of one worker: HTTP/1.1 and HTTP/2 connections per host, and single TCP connections.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{ConnectFailure, ResourcePriority, UpstreamFailure};
use crate::{
    http::{Body, BodyError, RequestHead, ResponseHead, stream_info::TlsInfo},
    net::{Address, Stream},
};

/// What a request wants of its transport socket; connections are only shared between requests that want the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TransportOptions {
    /// Server name instead of the configured one (`auto_sni`).
    pub sni: Option<Arc<str>>,
    /// SANs the peer's certificate must have instead of the configured ones (`auto_san_validation`).
    pub verify_sans: Vec<Arc<str>>,
    /// ALPN instead of the configured one.
    pub alpn: Vec<Arc<str>>,
    /// PROXY protocol addresses and whatever else must not be shared, already hashed; 0 for none.
    pub identity: u64,
}

/// Which pool of a host a request uses.
#[derive(Debug, Clone, Default)]
pub struct PoolOptions {
    /// Which circuit breakers it counts against.
    pub priority: ResourcePriority,
    /// What the client spoke, for clusters with `use_downstream_protocol_config`.
    pub downstream: Option<Version>,
    /// Transport socket options; none in the usual case.
    pub transport: Option<Arc<TransportOptions>>,
}

/// Facts of an upstream connection.
#[derive(Debug)]
pub struct UpstreamConnInfo {
    /// Unique in the process: `%UPSTREAM_CONNECTION_ID%`.
    pub id: u64,
    /// `%UPSTREAM_LOCAL_ADDRESS%`
    pub local_address: Address,
    /// `%UPSTREAM_REMOTE_ADDRESS%`
    pub remote_address: Address,
    /// TLS facts; none for plain text.
    pub tls: Option<Arc<TlsInfo>>,
    /// Protocol spoken.
    pub protocol: Version,
    /// Time from connect to established.
    pub connect_time: Duration,
}

/// The pool of one host, priority and transport socket.
pub struct HttpPool {}

impl HttpPool {
    /// Waits for a connection, as far as breakers allow. Dropping the future gives the place in the queue back.
    pub async fn acquire(&self) -> Result<Lease, ConnectFailure> {
        Err(ConnectFailure::Local {
            reason: "not built yet".into(),
        })
    }
}

/// The right to send one request over a connection. Dropped unused, the connection goes back to its pool.
pub struct Lease {
    conn: Arc<UpstreamConnInfo>,
}

impl Lease {
    /// The connection.
    pub fn conn(&self) -> &Arc<UpstreamConnInfo> {
        &self.conn
    }

    /// Sends a request and waits for the head of its response. Dropping the future resets the stream.
    ///
    /// A pooled connection that turns out to be closed before anything of the request was sent is replaced by
    /// another without the caller's noticing; the response tells which one it was.
    pub async fn send(self, head: RequestHead, body: Body) -> Result<UpstreamResponse, UpstreamFailure> {
        let _ = (head, body);
        Err(UpstreamFailure::ConnectionTermination)
    }
}

/// A response as it begins.
pub struct UpstreamResponse {
    /// Its head.
    pub head: ResponseHead,
    /// Its body; frees the connection when it ends or is dropped.
    pub body: UpstreamBody,
    /// The connection that was used in the end.
    pub conn: Arc<UpstreamConnInfo>,
    /// For 101 and for 2xx to CONNECT: the byte stream that follows.
    pub upgrade: Option<LocalBoxFuture<'static, Option<Stream>>>,
}

/// The body of a response. Counts are given back when it ends or is dropped, and the connection with them.
pub struct UpstreamBody {
    inner: Body,
}

impl From<UpstreamBody> for Body {
    fn from(body: UpstreamBody) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::boxed(body)
        }
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection of one's own.
pub struct TcpLease {
    /// The byte stream, behind its transport socket.
    pub stream: Stream,
    /// Its facts.
    pub conn: Arc<UpstreamConnInfo>,
}
