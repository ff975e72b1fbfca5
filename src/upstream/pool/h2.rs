//! HTTP/2 connections.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use http::{Method, Request, Uri, Version, header::HOST, uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{client::conn::http2, ext::Protocol, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    core::{Conn, OpenGuard, Pool, Sender},
    io::Counted,
};
use crate::{
    http::{Body, BodyError, Path, RequestHead},
    net::{Deadline, Stream},
    upstream::{ConnectFailure, stats::Http2CodecStats},
};

/// Runs the codec's tasks on the worker that has the connection.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A request as HTTP/2 has it: the URI carries the pseudo-headers.
pub(super) fn request(mut head: RequestHead, body: Body, pool: &Pool) -> Request<Body> {
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
    let io = TokioIo::new(Counted::new(stream, cluster.clone(), conn.received.clone()));
    let (sender, connection) = builder
        .handshake::<_, Body>(io)
        .await
        .map_err(|e| ConnectFailure::Remote {
            reason: e.to_string().into(),
        })?;
    conn.max_streams.set(connection.current_max_send_streams());
    open.ready(Sender::H2(sender), conn.clone());

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
