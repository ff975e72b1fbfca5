//! Running a downstream connection: protocol, codec, timers, drain.

use std::{
    convert::Infallible,
    error::Error as _,
    io,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    CloseReason, CodecOptions, CodecRequest, CodecType, Handler, Upgrade,
    io::{CodecIo, IoState, error_reply},
    reason,
};
use crate::{
    http::{Body, RequestHead, Scheme},
    net::{Deadline, Stream},
    server::Drain,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a connection whose request heads are timed is looked at, at least.
const TICK: Duration = Duration::from_millis(500);

/// How long a keep-alive connection is idle before it is parked: long enough that a busy client never is.
const PARK_AFTER: Duration = if cfg!(test) {
    Duration::from_millis(20)
} else {
    Duration::from_secs(1)
};

/// hyper's executor for HTTP/2 streams: the worker's own thread.
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

/// Serves a connection until it ends. `alpn` is the protocol that TLS settled; `tls` the scheme.
pub async fn serve<H: Handler + 'static>(
    mut stream: Stream,
    alpn: Option<&str>,
    scheme: Scheme,
    options: &CodecOptions,
    mut drain: Drain,
    handler: Rc<H>,
) {
    let (http2, prefix) = match (options.codec, alpn) {
        (CodecType::Http1, _) => (false, Bytes::new()),
        (CodecType::Http2, _) | (CodecType::Auto, Some("h2")) => (true, Bytes::new()),
        (CodecType::Auto, Some(_)) => (false, Bytes::new()),
        (CodecType::Auto, None) => match detect(&mut stream, options.idle_timeout).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => return,
        },
    };
    handler.protocol(if http2 { Version::HTTP_2 } else { Version::HTTP_11 });
    let state = Arc::new(IoState::default());
    let io = TokioIo::new(CodecIo::new(stream, prefix, options.server.clone(), state.clone()));
    let service = {
        let (state, handler) = (state.clone(), handler.clone());
        service_fn(move |request: Request<Incoming>| {
            state.head_pending.store(false, Ordering::Relaxed);
            let handler = handler.clone();
            let state = state.clone();
            async move {
                let (read, written) = state.take_counts();
                handler.count_bytes(read, written);
                let (head, body) = handler.handle(into_request(request, scheme)).await;
                let mut response = Response::new(body);
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers;
                if let Some(reason) = reason::differing(head.status) {
                    response.extensions_mut().insert(reason);
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let supervisor = Supervisor {
        options,
        state: &state,
        handler: &*handler,
        started: Instant::now(),
    };
    if http2 {
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(options.h2.max_streams)
            .initial_stream_window_size(options.h2.stream_window)
            .initial_connection_window_size(options.h2.connection_window)
            .max_header_list_size(u32::try_from(options.max_header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(256 * 1024);
        if options.h2.allow_connect {
            builder.enable_connect_protocol();
        }
        if let Some((interval, timeout)) = options.h2.keepalive {
            builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
        }
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    supervisor.ended(result.err());
                    break;
                }
                () = drain.wait(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = Deadline::after(supervisor.next_tick(false)) => match supervisor.tick() {
                    Tick::Fine | Tick::Park => {}
                    Tick::Shutdown if draining => {}
                    Tick::Shutdown | Tick::HeadersTimeout => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                },
            }
        }
    } else {
        http1_until_closed(io, &service, options, &mut drain, &supervisor).await;
    }
    if let Some(mut stream) = state.take_stream() {
        handler.protocol_error(StatusCode::REQUEST_TIMEOUT, "request_header_timeout");
        // Best effort: the client may well be gone.
        let _ = stream
            .write_all(&error_reply(StatusCode::REQUEST_TIMEOUT, options.server.as_ref()))
            .await;
        let _ = stream.shutdown().await;
    }
    if let Ok(status) = StatusCode::from_u16(state.own_error.load(Ordering::Relaxed)) {
        let too_large = status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        handler.protocol_error(
            status,
            if too_large {
                "http1.headers_too_large"
            } else {
                "http1.codec_error"
            },
        );
    }
    let (read, written) = state.take_counts();
    handler.count_bytes(read, written);
}

/// Runs HTTP/1 until the connection ends or its stream was taken back for the supervisor's own reply.
///
/// A connection that has been idle for a while is parked: hyper's side of it, which holds a read buffer of 8 KiB,
/// is dropped, and made anew when the client sends again.
async fn http1_until_closed<H: Handler, S>(
    mut io: TokioIo<CodecIo>,
    service: &S,
    options: &CodecOptions,
    drain: &mut Drain,
    supervisor: &Supervisor<'_, H>,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let state = supervisor.state;
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(options.max_header_bytes.max(8192))
        .title_case_headers(options.title_case)
        .preserve_header_case(options.preserve_case);
    // Set, it costs hyper 7 KiB of copying for each request; 100 is what it has room for anyway.
    if options.max_headers != 100 {
        builder.max_headers(options.max_headers);
    }
    loop {
        // Boxed, so that a parked connection's task does not keep room for it.
        let mut connection = Box::pin(builder.serve_connection(io, service).with_upgrades());
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => return supervisor.ended(result.err()),
                () = drain.wait(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = Deadline::after(supervisor.next_tick(true)) => match supervisor.tick() {
                    Tick::Fine => {}
                    Tick::HeadersTimeout => {
                        state.give_back.store(true, Ordering::Relaxed);
                        return;
                    }
                    Tick::Park if draining => {}
                    Tick::Park => break,
                    Tick::Shutdown if draining => {}
                    Tick::Shutdown => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                },
            }
        }
        state.give_back.store(true, Ordering::Relaxed);
        drop(connection);
        state.give_back.store(false, Ordering::Relaxed);
        let Some(mut stream) = state.take_stream() else { return };
        #[cfg(test)]
        tests::PARKED.set(tests::PARKED.get() + 1);
        if !parked(&stream, drain, supervisor).await {
            // The client sees an orderly end, as it would from the codec.
            let _ = stream.shutdown().await;
            return;
        }
        io = TokioIo::new(CodecIo::new(
            stream,
            Bytes::new(),
            options.server.clone(),
            state.clone(),
        ));
    }
}

/// Waits for a parked connection to be readable; false when it is to be closed instead.
async fn parked<H: Handler>(stream: &Stream, drain: &mut Drain, supervisor: &Supervisor<'_, H>) -> bool {
    loop {
        tokio::select! {
            biased;
            _ = stream.readable() => return true,
            () = drain.wait() => {
                supervisor.handler.closing(CloseReason::Drain);
                return false;
            }
            () = Deadline::after(supervisor.next_tick(false)) => {
                if let Tick::Shutdown = supervisor.tick() {
                    return false;
                }
            }
        }
    }
}

/// Reads until it is clear whether the client starts with HTTP/2's preface. None: the client went, or idled away.
async fn detect(stream: &mut Stream, idle: Option<Duration>) -> io::Result<Option<(bool, Bytes)>> {
    let mut seen = BytesMut::with_capacity(512);
    let reading = async {
        loop {
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(None);
            }
            let common = seen.len().min(PREFACE.len());
            if seen.get(..common) != PREFACE.get(..common) {
                return Ok(Some(false));
            }
            if common == PREFACE.len() {
                return Ok(Some(true));
            }
        }
    };
    let found = match idle {
        Some(limit) => tokio::time::timeout(limit, reading)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?,
        None => reading.await,
    };
    found.map(|f: Option<bool>| f.map(|http2| (http2, seen.freeze())))
}

enum Tick {
    Fine,
    /// Nothing of it is in the codec's buffers, and nothing has happened for a while.
    Park,
    Shutdown,
    HeadersTimeout,
}

/// Watches a connection's timers from outside the codec.
struct Supervisor<'a, H> {
    options: &'a CodecOptions,
    state: &'a Arc<IoState>,
    handler: &'a H,
    started: Instant,
}

impl<H: Handler> Supervisor<'_, H> {
    fn tick(&self) -> Tick {
        let active = self.handler.active_streams();
        let idle = self.handler.idle_since().elapsed();
        if active == 0
            && self.state.head_pending.load(Ordering::Relaxed)
            && self.options.headers_timeout.is_some_and(|limit| idle >= limit)
        {
            return Tick::HeadersTimeout;
        }
        if active == 0 && self.options.idle_timeout.is_some_and(|limit| idle >= limit) {
            self.handler.closing(CloseReason::Idle);
            return Tick::Shutdown;
        }
        if self
            .options
            .max_connection_duration
            .is_some_and(|limit| self.started.elapsed() >= limit)
        {
            self.handler.closing(CloseReason::MaxDuration);
            return Tick::Shutdown;
        }
        if active == 0 && idle >= PARK_AFTER && self.state.at_rest() {
            return Tick::Park;
        }
        Tick::Fine
    }

    /// When to look again: at the nearest timer, so that an idle connection sleeps for as long as it may.
    /// `parkable`: look whether it can be parked, too.
    fn next_tick(&self, parkable: bool) -> Duration {
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
        let head = self.options.headers_timeout.map(|limit| (limit / 4).min(TICK));
        let park = parkable.then(|| match PARK_AFTER.saturating_sub(idle) {
            left if !busy && !left.is_zero() => left,
            _ => PARK_AFTER,
        });
        [until_idle, until_old, head, park]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::from_secs(3600))
            .max(Duration::from_millis(5))
    }

    fn ended(&self, error: Option<hyper::Error>) {
        let Some(error) = error else { return };
        let protocol = error.is_parse()
            || error
                .source()
                .and_then(|s| s.downcast_ref::<h2::Error>())
                .is_some_and(|e| e.is_go_away() && e.is_library());
        self.handler.closing(if protocol {
            CloseReason::ProtocolError
        } else {
            CloseReason::Remote
        });
    }
}

/// The request as the rest of the house sees it.
fn into_request(mut request: Request<Incoming>, scheme: Scheme) -> CodecRequest {
    // Asked for before the request is taken apart: hyper keeps the promise in its extensions.
    let wants_upgrade = request.method() == http::Method::CONNECT || request.headers().contains_key(header::UPGRADE);
    let upgrade = wants_upgrade.then(|| Upgrade(hyper::upgrade::on(&mut request)));
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
        path: uri.path_and_query,
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
    }
}

#[cfg(test)]
mod tests;
