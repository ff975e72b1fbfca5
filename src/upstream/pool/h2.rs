//! HTTP/2 connections.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use http::{HeaderMap, Method, Request, Response, Uri, Version, header::HOST, uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http2, ext::Protocol, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    UpstreamBody, UpstreamResponse,
    core::{self, Conn, OpenGuard, Pool},
    io::Counted,
    lease::{Hold, Informed, NotSent},
};
use crate::{
    http::{Body, BodyError, Path, RequestHead, ResponseHead},
    net::{Deadline, Stream},
    upstream::{ConnectFailure, Http2CodecStats, UpstreamFailure},
};

/// What requests are sent through; one for all streams of a connection.
pub(super) type Sender = http2::SendRequest<Body>;

/// Sends a request and waits for the head of its response.
pub(super) async fn send(
    hold: Hold,
    mut sender: Sender,
    head: RequestHead,
    body: Body,
    _informed: Informed<'_>,
) -> Result<UpstreamResponse, NotSent> {
    let mut guard = StreamGuard {
        hold: Some(hold),
        phase: Phase::InFlight,
    };
    // What is left of the head besides its headers, should it have to be sent again.
    let shell = RequestHead {
        headers: HeaderMap::new(),
        spelling: None,
        path: head.path.clone(),
        method: head.method.clone(),
        authority: head.authority.clone(),
        protocol: head.protocol.clone(),
        ..head
    };
    let request = match &guard.hold {
        Some(hold) => request(head, body, &hold.pool),
        None => return Err(UpstreamFailure::ConnectionTermination.into()),
    };
    match sender.try_send_request(request).await {
        Ok(response) => guard.response(response),
        Err(mut failed) => match failed.take_message() {
            Some(unsent) => {
                let (mut parts, body) = unsent.into_parts();
                parts.headers.remove(HOST);
                let headers = parts.headers;
                guard.phase = Phase::Complete;
                Err(NotSent::Unsent(Box::new((RequestHead { headers, ..shell }, body))))
            }
            None => {
                let failure = UpstreamFailure::from(failed.error());
                guard.count_failure(&failure);
                Err(failure.into())
            }
        },
    }
}

/// A lease was dropped without a request.
pub(super) fn unused(hold: Hold) {
    drop(StreamGuard {
        hold: Some(hold),
        phase: Phase::Complete,
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Neither side is known to be done.
    InFlight,
    /// The response is complete, or nothing was sent.
    Complete,
    /// The stream failed.
    Failed,
}

/// A request's hold on a stream.
struct StreamGuard {
    /// None once it was given back.
    hold: Option<Hold>,
    phase: Phase,
}

impl StreamGuard {
    fn response(mut self, mut response: Response<Incoming>) -> Result<UpstreamResponse, NotSent> {
        let Some(hold) = &self.hold else {
            return Err(UpstreamFailure::ConnectionTermination.into());
        };
        let conn = hold.conn.info.clone();
        let tunnel =
            response.status().is_success() && response.extensions().get::<hyper::upgrade::OnUpgrade>().is_some();
        let upgrade: Option<LocalBoxFuture<'static, Option<Stream>>> = tunnel.then(|| {
            let on = hyper::upgrade::on(&mut response);
            async move {
                let upgraded = on.await.ok()?;
                Some(Stream::Other(Box::pin(TokioIo::new(upgraded))))
            }
            .boxed_local()
        });
        let (parts, incoming) = response.into_parts();
        let head = ResponseHead {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            spelling: None,
        };
        let body = match incoming.is_end_stream() {
            true => {
                self.phase = Phase::Complete;
                UpstreamBody::empty()
            }
            false => ResponseBody { incoming, stream: self }.into(),
        };
        Ok(UpstreamResponse {
            head,
            body,
            conn,
            upgrade,
        })
    }

    fn count_failure(&mut self, failure: &UpstreamFailure) {
        self.phase = Phase::Failed;
        let Some(hold) = &self.hold else { return };
        let stats = hold.pool.cluster.stats.local();
        match failure {
            UpstreamFailure::RemoteReset => stats.upstream_rq_rx_reset.inc(),
            UpstreamFailure::ProtocolError(_) => {
                stats.upstream_rq_tx_reset.inc();
                stats.upstream_cx_protocol_error.inc();
            }
            _ => {}
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        let (pool, conn) = (hold.pool.clone(), hold.conn.clone());
        drop(hold);
        if self.phase == Phase::InFlight {
            pool.cluster.stats.local().upstream_rq_tx_reset.inc();
        }
        pool.stream_ended(&conn);
    }
}

/// The body of a response.
pub(super) struct ResponseBody {
    incoming: Incoming,
    stream: StreamGuard,
}

impl ResponseBody {
    /// The next part. After an error the stream counts as failed.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                let error = BodyError::Codec(error);
                self.stream.count_failure(&UpstreamFailure::of_body(&error));
                error
            })
        }))
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

/// Runs the codec's tasks on the worker that has the connection.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A request as HTTP/2 has it: the URI carries the pseudo-headers.
fn request(mut head: RequestHead, body: Body, pool: &Pool) -> Request<Body> {
    let mut parts = uri::Parts::default();
    let authority = head.authority.as_ref().and_then(|a| pool.authority(a));
    match (authority, head.authority.take()) {
        (Some(authority), _) => parts.authority = Some(authority),
        // What is no URI authority can still be sent as a header.
        (None, Some(value)) => {
            head.headers.insert(HOST, value);
        }
        (None, None) => {}
    }
    parts.path_and_query = head.path.as_ref().and_then(Path::to_uri);
    if parts.authority.is_some() && parts.path_and_query.is_some() {
        parts.scheme = Some(match head.scheme {
            crate::http::Scheme::Http => uri::Scheme::HTTP,
            crate::http::Scheme::Https => uri::Scheme::HTTPS,
        });
    }
    let mut request = Request::new(match body {
        Body::Empty if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => Body::boxed(Ended),
        body => body,
    });
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers;
    if let Some(protocol) = head.protocol {
        request.extensions_mut().insert(Protocol::from(&*protocol));
    }
    request
}

/// No body, whose length goes unsaid: to the codec an empty body is a `content-length: 0` nobody sent.
struct Ended;

impl HttpBody for Ended {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Serves requests over a stream until it closes.
pub(super) async fn drive(open: &mut OpenGuard, stream: Stream, conn: Rc<Conn>) -> Result<(), ConnectFailure> {
    let cluster = open.pool.cluster.clone();
    let _: crate::stats::Stats<Http2CodecStats> = cluster.scope.block();
    let options = &cluster.http.http2;
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .header_table_size(options.hpack_table_size)
        .max_header_list_size(cluster.http.max_response_headers_kb.saturating_mul(1024));
    if let Some(keepalive) = options.keepalive {
        builder
            .keep_alive_interval(keepalive.interval)
            .keep_alive_timeout(keepalive.timeout)
            .keep_alive_while_idle(true);
    }
    let io = TokioIo::new(Counted::new(stream, cluster.clone()));
    let (sender, connection) = builder
        .handshake::<_, Body>(io)
        .await
        .map_err(|e| ConnectFailure::Remote {
            reason: e.to_string().into(),
        })?;
    conn.max_streams.set(connection.current_max_send_streams());
    open.ready(core::Sender::H2(sender), conn.clone());

    let mut connection = pin!(connection);
    let mut timer = open.check_timers(&conn).map(Deadline::at);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::as_mut(&mut connection).poll(cx) {
            return Poll::Ready(ended);
        }
        open.streams_allowed(&conn, connection.current_max_send_streams());
        while timer.as_mut().is_some_and(|t| Pin::new(t).poll(cx).is_ready()) {
            timer = open.check_timers(&conn).map(Deadline::at);
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(cluster = %cluster.name, %error, "upstream connection ended");
    }
    Ok(())
}
