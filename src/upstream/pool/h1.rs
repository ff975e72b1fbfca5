//! HTTP/1.1 connections.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::Poll,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, sync::oneshot};

use super::{
    UpstreamBody, UpstreamResponse,
    core::{self, Conn, OpenGuard},
    io::{Counted, Upgraded},
    lease::{Hold, Informed, NotSent},
};
use crate::{
    http::{Body, BodyError, Path, RequestHead, ResponseHead},
    net::{Deadline, Stream},
    upstream::{ConnectFailure, UpstreamFailure, config::HttpOptions, stats::Http1CodecStats},
};

/// What requests are sent through, one after the other.
pub(super) type Sender = http1::SendRequest<Body>;

/// Sends a request and waits for the head of its response.
pub(super) async fn send(
    hold: Hold,
    sender: Sender,
    head: RequestHead,
    body: Body,
    _informed: Informed<'_>,
) -> Result<UpstreamResponse, NotSent> {
    let conn = hold.conn.clone();
    let wants_upgrade = head.method == Method::CONNECT || head.headers.contains_key(UPGRADE);
    let received = conn.received.load(Relaxed);
    let shell = RequestHead {
        headers: HeaderMap::new(),
        path: head.path.clone(),
        method: head.method.clone(),
        authority: head.authority.clone(),
        protocol: head.protocol.clone(),
        ..head
    };
    let request = request(head, body, &hold.pool.cluster.http);
    let mut guard = StreamGuard {
        sender: Some((hold, sender)),
        phase: Phase::InFlight,
    };
    let upgraded = wants_upgrade.then(|| {
        let (taker, taken) = oneshot::channel();
        *conn.upgrade.borrow_mut() = Some(taker);
        taken
    });
    let Some((_, sender)) = &mut guard.sender else {
        return Err(UpstreamFailure::ConnectionTermination.into());
    };
    match sender.try_send_request(request).await {
        Ok(response) if is_ambiguous(&response) => {
            let failure = UpstreamFailure::ProtocolError("content-length besides transfer-encoding".into());
            guard.count_failure(&failure);
            Err(failure.into())
        }
        Ok(response) => guard.response(response, upgraded),
        Err(mut failed) => match failed.take_message() {
            Some(unsent) => {
                let (mut parts, body) = unsent.into_parts();
                parts.headers.remove(HOST);
                let headers = parts.headers;
                Err(NotSent::Unsent(Box::new((RequestHead { headers, ..shell }, body))))
            }
            None => {
                let failure = match UpstreamFailure::from(failed.error()) {
                    // A head that ends in its middle is malformed, not missing.
                    UpstreamFailure::ConnectionTermination if conn.received.load(Relaxed) > received => {
                        UpstreamFailure::ProtocolError("unexpected end of stream".into())
                    }
                    failure => failure,
                };
                guard.count_failure(&failure);
                Err(failure.into())
            }
        },
    }
}

/// A lease was dropped without a request.
pub(super) fn unused(hold: Hold, sender: Sender) {
    drop(StreamGuard {
        sender: Some((hold, sender)),
        phase: Phase::Complete,
    });
}

/// Whether the response can be read in two ways, so that whoever comes after could be given another's: two
/// lengths of its body, or a length where there is none.
fn is_ambiguous(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let length = headers.get(CONTENT_LENGTH);
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    match response.status() {
        StatusCode::NO_CONTENT => chunked || length.is_some_and(|l| l != "0"),
        _ => chunked && length.is_some(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Neither side is known to be done.
    InFlight,
    /// The response is complete, or nothing was sent.
    Complete,
    /// The exchange failed.
    Failed,
}

/// A request's hold on a connection, and what becomes of the connection after it.
struct StreamGuard {
    /// None once the connection was given back.
    sender: Option<(Hold, Sender)>,
    phase: Phase,
}

impl StreamGuard {
    fn response(
        mut self,
        response: Response<Incoming>,
        upgraded: Option<oneshot::Receiver<Stream>>,
    ) -> Result<UpstreamResponse, NotSent> {
        let Some((hold, _)) = &self.sender else {
            return Err(UpstreamFailure::ConnectionTermination.into());
        };
        let (conn, pool) = (hold.conn.clone(), hold.pool.clone());
        let status = response.status();
        let tunnel = status.is_success() && response.extensions().get::<hyper::upgrade::OnUpgrade>().is_some();
        let upgrade: Option<LocalBoxFuture<'static, Option<Stream>>> = match upgraded {
            Some(taken) if status == StatusCode::SWITCHING_PROTOCOLS || tunnel => {
                conn.retired.set(true);
                Some(async move { taken.await.ok() }.boxed_local())
            }
            Some(_) => {
                conn.upgrade.borrow_mut().take();
                None
            }
            None => None,
        };
        let (parts, incoming) = response.into_parts();
        if closes(parts.version, &parts.headers) && upgrade.is_none() {
            pool.cluster.stats.local().upstream_cx_close_notify.inc();
            conn.retired.set(true);
        }
        let head = ResponseHead {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
        };
        let body = match incoming.is_end_stream() {
            true => {
                self.phase = Phase::Complete;
                UpstreamBody::empty()
            }
            false => ResponseBody {
                incoming,
                keeps_trailers: pool.cluster.http.http1.trailers,
                stream: self,
            }
            .into(),
        };
        Ok(UpstreamResponse {
            head,
            body,
            conn: conn.info.clone(),
            upgrade,
        })
    }

    fn count_failure(&mut self, failure: &UpstreamFailure) {
        self.phase = Phase::Failed;
        let Some((hold, _)) = &self.sender else { return };
        let stats = hold.pool.cluster.stats.local();
        match failure {
            UpstreamFailure::RemoteReset => stats.upstream_rq_rx_reset.inc(),
            UpstreamFailure::ConnectionTermination => stats.upstream_rq_pending_failure_eject.inc(),
            UpstreamFailure::ProtocolError(_) => stats.upstream_rq_tx_reset.inc(),
            _ => {}
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let Some((hold, sender)) = self.sender.take() else {
            return;
        };
        let (pool, conn) = (hold.pool.clone(), hold.conn.clone());
        drop(hold);
        if self.phase == Phase::Complete && !conn.retired.get() {
            if sender.is_ready() {
                pool.put_back(sender, conn);
            } else if !sender.is_closed() {
                // The response is complete, but not yet the request: the connection is free when it is.
                tokio::task::spawn_local(async move {
                    let mut sender = sender;
                    if sender.ready().await.is_ok() {
                        pool.put_back(sender, conn);
                    }
                });
            }
        } else {
            // Whatever else is on the wire, nothing can follow it.
            conn.closed_locally.set(true);
        }
    }
}

/// The body of a response.
pub(super) struct ResponseBody {
    incoming: Incoming,
    keeps_trailers: bool,
    stream: StreamGuard,
}

impl ResponseBody {
    /// The next part. After an error the exchange counts as failed.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(match frame {
            // HTTP/1 has no trailers unless `enable_trailers` says so.
            Some(Ok(frame)) if frame.is_trailers() && !self.keeps_trailers => None,
            Some(Err(error)) => {
                let error = BodyError::Codec(error);
                self.stream.count_failure(&UpstreamFailure::of_body(&error));
                Some(Err(error))
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            None => None,
        })
    }

    /// The response is complete.
    pub(super) fn complete(mut self) {
        self.stream.phase = Phase::Complete;
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
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

/// A request as HTTP/1.1 has it: origin form (or the authority for CONNECT), and a `host` header.
fn request(mut head: RequestHead, body: Body, options: &HttpOptions) -> Request<Body> {
    let path = head.path.as_ref().and_then(Path::to_uri);
    let uri = match (path, &head.authority) {
        (Some(path), Some(authority)) if options.http1.absolute_url => {
            let text = [
                head.scheme.as_str().as_bytes(),
                b"://",
                authority.as_bytes(),
                path.as_str().as_bytes(),
            ]
            .concat();
            Uri::try_from(text).unwrap_or_else(|_| Uri::from(path))
        }
        (Some(path), _) => Uri::from(path),
        (None, Some(authority)) => Uri::try_from(authority.as_bytes()).unwrap_or_default(),
        (None, None) => Uri::default(),
    };
    if let Some(authority) = head.authority.take() {
        head.headers.insert(HOST, authority);
    }
    frame(&mut head, &body);
    let body = match options.http1.trailers || body.is_end_stream() {
        true => body,
        false => Body::boxed(WithoutTrailers(body)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    request
}

/// Says how the body is framed: by its length when the request says it, in chunks otherwise; a request without a body
/// says so unless its method hardly ever has one.
fn frame(head: &mut RequestHead, body: &Body) {
    let bodiless = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
    );
    if head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(UPGRADE) {
        return;
    }
    if body.is_end_stream() {
        if !bodiless {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if body.size_hint().exact().is_none() && head.method != Method::CONNECT {
        head.headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// HTTP/1 has no trailers unless `enable_trailers` says so: what reads them badly is older than what sends them.
struct WithoutTrailers(Body);

impl HttpBody for WithoutTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match std::task::ready!(Pin::new(&mut self.0).poll_frame(cx)) {
            Some(Ok(frame)) if frame.is_trailers() => Poll::Ready(None),
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Serves requests over a stream until it closes.
pub(super) async fn drive(open: &mut OpenGuard, stream: Stream, conn: Rc<Conn>) -> Result<(), ConnectFailure> {
    let cluster = open.pool.cluster.clone();
    let http = &cluster.http;
    let _: crate::stats::Stats<Http1CodecStats> = cluster.scope.block();
    let mut builder = http1::Builder::new();
    builder
        .title_case_headers(http.http1.proper_case)
        .preserve_header_case(http.http1.preserve_case)
        .max_header_size(http.max_response_headers_kb as usize * 1024);
    // Set, it costs hyper 7 KiB of copying for each message; 100 is what it has room for anyway.
    if http.max_headers_count != 100 {
        builder.max_headers(http.max_headers_count as usize);
    }
    let io = TokioIo::new(Counted::new(stream, cluster.clone(), conn.received.clone()));
    let (sender, connection) = builder.handshake(io).await.map_err(|e| ConnectFailure::Local {
        reason: e.to_string().into(),
    })?;
    open.ready(core::Sender::H1(sender), conn.clone());

    let mut connection = connection;
    let mut timer = open.check_timers(&conn).map(Deadline::at);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(ended);
        }
        while timer.as_mut().is_some_and(|t| Pin::new(t).poll(cx).is_ready()) {
            timer = open.check_timers(&conn).map(Deadline::at);
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = &ended {
        tracing::debug!(cluster = %cluster.name, %error, "upstream connection ended");
        if error.is_parse() {
            cluster.stats.local().upstream_cx_protocol_error.inc();
        }
    }
    let parts = connection.into_parts();
    let mut counted: Counted = parts.io.into_inner();
    let taker = conn.upgrade.borrow_mut().take();
    match taker {
        Some(taker) if ended.is_ok() => {
            let (counted_until, dropped) = tokio::sync::oneshot::channel::<()>();
            let upgraded = Upgraded {
                head: parts.read_buf,
                stream: counted,
                _counted: counted_until,
            };
            let _ = taker.send(Stream::Other(Box::pin(upgraded)));
            // The connection counts as open until whoever took the stream drops it.
            let _ = dropped.await;
        }
        _ if ended.is_ok() && matches!(counted.stream, Stream::ClientTls(_) | Stream::Other(_)) => {
            // Best effort: the peer may be gone.
            let _ = tokio::time::timeout(CLOSE_TIME, counted.shutdown()).await;
        }
        _ => {}
    }
    Ok(())
}

/// How long a TLS close may take.
const CLOSE_TIME: std::time::Duration = std::time::Duration::from_secs(1);
