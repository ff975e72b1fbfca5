//! One request over one connection.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use futures_util::{FutureExt, future::LocalBoxFuture};
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::TrySendError};
use hyper_util::rt::TokioIo;

use super::{
    UpstreamBody, UpstreamConnInfo,
    core::{Conn, Pool, Sender},
    h1, h2,
};
use crate::{
    http::{Body, BodyError, RequestHead, ResponseHead},
    net::Stream,
    upstream::UpstreamFailure,
};

/// The right to send one request over a connection. Dropped unused, the connection goes back to its pool.
pub struct Lease {
    stream: StreamGuard,
}

/// A response as it begins.
pub struct UpstreamResponse {
    /// Its head.
    pub head: ResponseHead,
    /// Its body; frees the connection when it ends or is dropped.
    pub body: UpstreamBody,
    /// The connection that was used in the end.
    pub conn: Arc<UpstreamConnInfo>,
    /// For 101 and for 2xx to CONNECT: the byte stream that follows; none if the connection broke.
    pub upgrade: Option<LocalBoxFuture<'static, Option<Stream>>>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?})", self.conn())
    }
}

impl Lease {
    pub(super) fn new(pool: Rc<Pool>, sender: Sender, conn: Rc<Conn>) -> Self {
        Self {
            stream: StreamGuard {
                pool,
                sender: Some(sender),
                conn,
                phase: Phase::Unused,
            },
        }
    }

    /// The connection.
    pub fn conn(&self) -> &Arc<UpstreamConnInfo> {
        &self.stream.conn.info
    }

    /// Sends a request and waits for the head of its response. Dropping the future resets the stream.
    ///
    /// A pooled connection that turns out to be closed before anything of the request was sent is replaced by
    /// another without the caller's noticing; the response tells which one it was.
    pub async fn send(self, head: RequestHead, body: Body) -> Result<UpstreamResponse, UpstreamFailure> {
        let wants_upgrade = head.method == Method::CONNECT || head.headers.contains_key(UPGRADE);
        let mut stream = self.stream;
        let mut request = stream.request(head, body);
        loop {
            stream.phase = Phase::InFlight;
            let received = stream.conn.received.load(Relaxed);
            let upgraded = wants_upgrade.then(|| stream.expect_upgrade()).flatten();
            let failed = match stream.exchange(request).await {
                Ok(response) if stream.is_ambiguous(&response) => {
                    let failure = UpstreamFailure::ProtocolError("content-length besides transfer-encoding".into());
                    stream.count_failure(&failure);
                    return Err(failure);
                }
                Ok(response) => return Ok(stream.response(response, upgraded)),
                Err(failed) => failed,
            };
            let mut failed = failed;
            match failed.take_message() {
                Some(unsent) if stream.conn.reused() => {
                    let pool = stream.pool.clone();
                    drop(stream);
                    stream = pool.acquire().await?.stream;
                    request = stream.adapt(unsent);
                }
                _ => {
                    let failure = match UpstreamFailure::from(failed.error()) {
                        // A head that ends in its middle is malformed, not missing.
                        UpstreamFailure::ConnectionTermination
                            if stream.is_http1() && stream.conn.received.load(Relaxed) > received =>
                        {
                            UpstreamFailure::ProtocolError("unexpected end of stream".into())
                        }
                        failure => failure,
                    };
                    stream.count_failure(&failure);
                    return Err(failure);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent.
    Unused,
    /// Neither side is known to be done.
    InFlight,
    /// The response is complete.
    Complete,
    /// The stream failed.
    Failed,
}

/// A request's hold on a connection: its counts, and what becomes of the connection after it.
pub(super) struct StreamGuard {
    pool: Rc<Pool>,
    /// None once the connection was given back.
    sender: Option<Sender>,
    conn: Rc<Conn>,
    phase: Phase,
}

impl StreamGuard {
    fn is_http1(&self) -> bool {
        matches!(self.sender, Some(Sender::H1(_)))
    }

    /// Whether trailers of the response go no further.
    pub(super) fn drops_trailers(&self) -> bool {
        self.is_http1() && !self.pool.cluster.http.http1.trailers
    }

    /// Whether the response can be read in two ways, so that whoever comes after could be given another's: two
    /// lengths of its body, or a length where there is none.
    fn is_ambiguous(&self, response: &Response<Incoming>) -> bool {
        let headers = response.headers();
        let length = headers.get(CONTENT_LENGTH);
        let chunked = headers.contains_key(TRANSFER_ENCODING);
        self.is_http1()
            && match response.status() {
                StatusCode::NO_CONTENT => chunked || length.is_some_and(|l| l != "0"),
                _ => chunked && length.is_some(),
            }
    }

    fn request(&self, head: RequestHead, body: Body) -> Request<Body> {
        match &self.sender {
            Some(Sender::H2(_)) => h2::request(head, body, &self.pool),
            _ => h1::request(head, body, &self.pool.cluster.http),
        }
    }

    /// A request made for one connection on another of the same pool: only `auto_config` may change the version,
    /// and both forms can be written by either codec but for the URI.
    fn adapt(&self, mut request: Request<Body>) -> Request<Body> {
        let http2 = matches!(self.sender, Some(Sender::H2(_)));
        if http2 == (request.version() == Version::HTTP_2) {
            return request;
        }
        let (mut parts, body) = std::mem::take(&mut request).into_parts();
        let head = RequestHead {
            method: parts.method,
            scheme: match parts.uri.scheme_str() {
                Some("https") => crate::http::Scheme::Https,
                _ => crate::http::Scheme::Http,
            },
            authority: parts.headers.remove(http::header::HOST).or_else(|| {
                parts
                    .uri
                    .authority()
                    .and_then(|a| http::HeaderValue::from_str(a.as_str()).ok())
            }),
            path: parts.uri.path_and_query().cloned().map(Into::into),
            protocol: None,
            version: parts.version,
            headers: parts.headers,
        };
        self.request(head, body)
    }

    async fn exchange(&mut self, request: Request<Body>) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match &mut self.sender {
            Some(Sender::H1(sender)) => sender.try_send_request(request).await,
            Some(Sender::H2(sender)) => sender.try_send_request(request).await,
            // A guard has its sender until its response is complete.
            None => std::future::pending().await,
        }
    }

    /// Arranges for the connection's task to hand over the byte stream; HTTP/2 does it by itself.
    fn expect_upgrade(&self) -> Option<tokio::sync::oneshot::Receiver<Stream>> {
        match &self.sender {
            Some(Sender::H1(_)) => {
                let (taker, taken) = tokio::sync::oneshot::channel();
                *self.conn.upgrade.borrow_mut() = Some(taker);
                Some(taken)
            }
            _ => None,
        }
    }

    fn response(
        mut self,
        mut response: Response<Incoming>,
        upgraded: Option<tokio::sync::oneshot::Receiver<Stream>>,
    ) -> UpstreamResponse {
        let conn = self.conn.info.clone();
        let status = response.status();
        let http1 = self.is_http1();
        let upgrade: Option<LocalBoxFuture<'static, Option<Stream>>> = match upgraded {
            Some(taken) if status == StatusCode::SWITCHING_PROTOCOLS || is_tunnel(&response) => {
                self.conn.retired.set(true);
                Some(async move { taken.await.ok() }.boxed_local())
            }
            Some(_) => {
                self.conn.upgrade.borrow_mut().take();
                None
            }
            None if !http1 && is_tunnel(&response) => {
                let on = hyper::upgrade::on(&mut response);
                Some(
                    async move {
                        let upgraded = on.await.ok()?;
                        Some(Stream::Other(Box::pin(TokioIo::new(upgraded))))
                    }
                    .boxed_local(),
                )
            }
            None => None,
        };
        let (parts, incoming) = response.into_parts();
        if http1 && closes(parts.version, &parts.headers) && upgrade.is_none() {
            self.pool.cluster.stats.local().upstream_cx_close_notify.inc();
            self.conn.retired.set(true);
        }
        let head = ResponseHead {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
        };
        let body = match incoming.is_end_stream() {
            true => {
                self.complete();
                UpstreamBody::empty()
            }
            false => UpstreamBody::new(incoming, self),
        };
        UpstreamResponse {
            head,
            body,
            conn,
            upgrade,
        }
    }

    /// The response is complete: the connection is free for the next request.
    pub(super) fn complete(&mut self) {
        self.phase = Phase::Complete;
        self.release();
    }

    /// The response broke off.
    pub(super) fn failed(&mut self, error: &BodyError) {
        let failure = UpstreamFailure::of_body(error);
        self.count_failure(&failure);
    }

    fn count_failure(&mut self, failure: &UpstreamFailure) {
        self.phase = Phase::Failed;
        let stats = self.pool.cluster.stats.local();
        match failure {
            UpstreamFailure::RemoteReset => stats.upstream_rq_rx_reset.inc(),
            UpstreamFailure::ConnectionTermination => stats.upstream_rq_pending_failure_eject.inc(),
            UpstreamFailure::ProtocolError(_) => {
                stats.upstream_rq_tx_reset.inc();
                if matches!(self.sender, Some(Sender::H2(_))) {
                    stats.upstream_cx_protocol_error.inc();
                }
            }
            _ => {}
        }
    }

    fn release(&mut self) {
        let Some(sender) = self.sender.take() else {
            return;
        };
        self.pool.detach(&self.conn);
        match (sender, self.phase) {
            (Sender::H2(_), phase) => {
                if phase == Phase::InFlight {
                    self.pool.cluster.stats.local().upstream_rq_tx_reset.inc();
                }
                self.pool.stream_ended(&self.conn);
            }
            (Sender::H1(sender), Phase::Unused | Phase::Complete) if !self.conn.retired.get() => {
                if sender.is_ready() {
                    self.pool.put_back(sender, self.conn.clone());
                } else if !sender.is_closed() {
                    wait_ready(self.pool.clone(), sender, self.conn.clone());
                }
            }
            // Whatever else is on the wire, nothing can follow it.
            (Sender::H1(sender), _) => {
                self.conn.closed_locally.set(true);
                drop(sender);
            }
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.release();
    }
}

/// The response is complete, but not yet the request: the connection is free when it is.
fn wait_ready(pool: Rc<Pool>, mut sender: hyper::client::conn::http1::SendRequest<Body>, conn: Rc<Conn>) {
    tokio::task::spawn_local(async move {
        if sender.ready().await.is_ok() {
            pool.put_back(sender, conn);
        }
    });
}

/// A 2xx answer that hyper has a byte stream behind.
fn is_tunnel(response: &Response<Incoming>) -> bool {
    response.status().is_success() && response.extensions().get::<hyper::upgrade::OnUpgrade>().is_some()
}

/// Whether the upstream closes the connection after this response.
fn closes(version: Version, headers: &HeaderMap) -> bool {
    let mut tokens = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|v| v.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii);
    match version {
        Version::HTTP_10 => !tokens.any(|t| t.eq_ignore_ascii_case(b"keep-alive")),
        _ => tokens.any(|t| t.eq_ignore_ascii_case(b"close")),
    }
}
