//! HTTP/2 towards the client: hyper's codec, with our timers and drain around it.

use std::{
    convert::Infallible,
    error::Error as _,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    CloseReason, CodecOptions, CodecRequest, Handler, StreamHandle, Upgrade,
    counted::{CountedStream, Counts},
};
use crate::{
    http::{Body, RequestHead, Scheme},
    net::{Deadline, Stream},
    server::Drain,
};

/// hyper's executor for streams: the worker's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves HTTP/2 until the connection ends. `prefix` was read of it already.
pub(super) async fn serve<H: Handler + 'static>(
    stream: Stream,
    prefix: Bytes,
    scheme: Scheme,
    options: &CodecOptions,
    mut drain: Drain,
    handler: Rc<H>,
) {
    let counts = Rc::new(Counts::default());
    let io = TokioIo::new(CountedStream::new(stream, prefix, counts.clone()));
    let service = {
        let (counts, handler) = (counts.clone(), handler.clone());
        service_fn(move |request: Request<Incoming>| {
            let handler = handler.clone();
            let (read, written) = counts.take();
            handler.count_bytes(read, written);
            async move {
                let (head, body) = handler.handle(into_request(request, scheme)).await;
                let mut response = Response::new(body);
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers;
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.h2.max_streams)
        .initial_stream_window_size(options.h2.stream_window)
        .initial_connection_window_size(options.h2.connection_window)
        .max_header_list_size(u32::try_from(options.h1.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(256 * 1024);
    if options.h2.allow_connect {
        builder.enable_connect_protocol();
    }
    if let Some((interval, timeout)) = options.h2.keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    let timers = Timers {
        options,
        handler: &*handler,
        started: Instant::now(),
    };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                ended(&*handler, result.err());
                break;
            }
            () = drain.wait(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = Deadline::after(timers.next()) => {
                if !draining && let Some(reason) = timers.due() {
                    handler.closing(reason);
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
    let (read, written) = counts.take();
    handler.count_bytes(read, written);
}

/// The timers of a connection, looked at when the nearest may have run out.
struct Timers<'a, H> {
    options: &'a CodecOptions,
    handler: &'a H,
    started: Instant,
}

impl<H: Handler> Timers<'_, H> {
    fn due(&self) -> Option<CloseReason> {
        let is_due = |limit: Option<Duration>, elapsed: Duration| limit.is_some_and(|limit| elapsed >= limit);
        let idle = self.handler.active_streams() == 0;
        if idle && is_due(self.options.idle_timeout, self.handler.idle_since().elapsed()) {
            return Some(CloseReason::Idle);
        }
        is_due(self.options.max_connection_duration, self.started.elapsed()).then_some(CloseReason::MaxDuration)
    }

    fn next(&self) -> Duration {
        let idle = self.handler.idle_since().elapsed();
        let busy = self.handler.active_streams() > 0;
        let until_idle = self
            .options
            .idle_timeout
            .map(|limit| if busy { limit } else { limit.saturating_sub(idle) });
        let until_old = self
            .options
            .max_connection_duration
            .map(|limit| limit.saturating_sub(self.started.elapsed()));
        [until_idle, until_old]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::from_secs(3600))
            .max(Duration::from_millis(5))
    }
}

fn ended(handler: &impl Handler, error: Option<hyper::Error>) {
    let Some(error) = error else { return };
    let protocol = error.is_parse()
        || error
            .source()
            .and_then(|s| s.downcast_ref::<h2::Error>())
            .is_some_and(|e| e.is_go_away() && e.is_library());
    handler.closing(if protocol {
        CloseReason::ProtocolError
    } else {
        CloseReason::Remote
    });
}

/// The request as the rest of the house sees it.
fn into_request(mut request: Request<Incoming>, scheme: Scheme) -> CodecRequest {
    // Asked for before the request is taken apart: hyper keeps the promise in its extensions.
    let wants_upgrade = request.method() == http::Method::CONNECT || request.headers().contains_key(header::UPGRADE);
    let upgrade = wants_upgrade.then(|| Upgrade::Http2(hyper::upgrade::on(&mut request)));
    let (parts, incoming) = request.into_parts();
    let mut headers = parts.headers;
    let uri = parts.uri.into_parts();
    // Several become one, which then matches no virtual host by accident.
    let host = match headers.get_all(header::HOST).iter().nth(1) {
        None => headers.remove(header::HOST),
        Some(_) => {
            let all: Vec<&[u8]> = headers
                .get_all(header::HOST)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            let joined = HeaderValue::from_bytes(&all.join(&b','));
            headers.remove(header::HOST);
            joined.ok()
        }
    };
    let authority = match uri.authority {
        // An absolute target's authority wins over `host` (RFC 9112, 3.2.2).
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => host,
    };
    let protocol = parts
        .extensions
        .get::<hyper::ext::Protocol>()
        .map(|p| p.as_str().into());
    let scheme = match uri.scheme.as_ref().map(http::uri::Scheme::as_str) {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => scheme,
    };
    let head = RequestHead {
        method: parts.method,
        scheme,
        authority,
        path: uri.path_and_query.map(Into::into),
        protocol,
        version: parts.version,
        headers,
    };
    let header_bytes = head
        .headers
        .iter()
        .map(|(n, v)| n.as_str().len() + v.len() + 4)
        .sum::<usize>() as u64;
    let body = if hyper::body::Body::is_end_stream(&incoming) {
        Body::Empty
    } else {
        Body::Incoming(incoming)
    };
    CodecRequest {
        head,
        body,
        upgrade,
        header_bytes,
        fragment: false,
        handle: StreamHandle::default(),
    }
}
