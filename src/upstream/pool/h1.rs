//! HTTP/1.1 connections.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Uri,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::{
    core::{Conn, OpenGuard, Sender},
    io::{Counted, Upgraded},
};
use crate::{
    http::{Body, BodyError, Path, RequestHead},
    net::{Deadline, Stream},
    upstream::{ConnectFailure, config::HttpOptions, stats::Http1CodecStats},
};

/// A request as HTTP/1.1 has it: origin form (or the authority for CONNECT), and a `host` header.
pub(super) fn request(mut head: RequestHead, body: Body, options: &HttpOptions) -> Request<Body> {
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
    open.ready(Sender::H1(sender), conn.clone());

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
