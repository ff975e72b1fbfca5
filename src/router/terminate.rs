//! CONNECT that ends here: its bytes, or a POST's, are the payload of a connection of their own
//! (`upgrade_configs.connect_config`).

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    attempt::{self, Answer},
    body::{Bodies, RequestTail},
    failure::Failure,
    request::Request,
    upstream_log::AttemptLog,
};
use crate::{
    http::{Body, BodyError, Flag, RequestHead, ResponseHead, filter::FilterCx},
    net::{Address, Stream, proxy_protocol},
    route::RouteAction,
    upstream::{Host, HostResult, PoolOptions, UpstreamFailure},
};

/// So much is read at once.
const PART: usize = 16 * 1024;

/// Whether the request ends here instead of going on as HTTP.
pub(super) fn applies(action: &RouteAction, head: &RequestHead) -> bool {
    let Some(config) = &action.connect else { return false };
    head.protocol.is_none() && (head.method == Method::CONNECT || config.allow_post && head.method == Method::POST)
}

/// Connects to `host`; the answer is ours.
pub(super) async fn run(
    request: &Request<'_>,
    cx: &RefCell<&mut FilterCx>,
    head: &RequestHead,
    host: &Arc<Host>,
    bodies: &Bodies,
    options: &PoolOptions,
) -> Result<Box<Answer>, Failure> {
    let asked = Instant::now();
    let leased = tokio::select! {
        biased;
        leased = request.cluster.tcp(host, options) => leased,
        // What comes meanwhile is kept, as far as that goes.
        never = bodies.keep_coming() => match never {},
    };
    let progress = cx.borrow().info.progress.clone();
    cx.borrow_mut().info.upstream.pool_ready = Some(asked.elapsed());
    let lease = leased.map_err(Failure::Connect)?;
    attempt::note(&mut cx.borrow_mut(), &lease.conn);
    // No protocol is spoken.
    cx.borrow_mut().info.upstream.protocol = None;
    AttemptLog::pool_ready(request.config, head, &cx.borrow().info);
    request.count(|stats| &stats.upstream_rq_total);
    request.cluster.report(host, HostResult::Connected);
    let ready = Instant::now();
    progress.first_upstream_tx.set(Some(ready));
    progress.upstream_bytes_sent.set(0);
    let mut stream = lease.into_request();
    let header = proxy_header(request.action, &cx.borrow());
    if let Some(header) = header {
        let written = stream.write_all(&header).await;
        written.map_err(|_| Failure::Upstream(UpstreamFailure::ConnectionTermination))?;
    }
    progress.first_upstream_rx.set(Some(Instant::now()));
    let mut answer = Answer {
        head: ResponseHead::new(StatusCode::OK),
        body: Body::Empty,
        upgrade: None,
        ready,
        local: None,
    };
    if head.method == Method::CONNECT {
        answer.upgrade = Some(std::future::ready(Some(stream)).boxed_local());
    } else {
        let mut payload = Payload {
            stream,
            request: Some(RequestTail::wrap(bodies.next(), &progress)),
            waiting: Bytes::new(),
            ended: false,
            shut: false,
        };
        // What is there already goes before the answer, which tells whether the request was complete by then.
        let sent = poll_fn(|cx| Poll::Ready(payload.poll_send(cx))).await;
        if let Poll::Ready(Err(error)) = sent {
            return Err(Failure::Upstream(UpstreamFailure::of_body(&error)));
        }
        answer.body = Body::boxed(payload);
    }
    Ok(Box::new(answer))
}

/// `proxy_protocol_config`: who the client is, before anything else.
fn proxy_header(action: &RouteAction, cx: &FilterCx) -> Option<Vec<u8>> {
    let version = action.connect?.proxy_protocol?;
    let connection = &cx.info.connection;
    let addresses = match (&connection.remote_address, &connection.local_address) {
        (Address::Ip(from), Address::Ip(to)) => Some((*from, *to)),
        _ => None,
    };
    Some(match version {
        1 => proxy_protocol::write_v1(addresses),
        _ => proxy_protocol::write_v2(addresses, std::iter::empty()),
    })
}

/// What comes over the connection, as a body; while it is waited for the request's body goes the other way.
struct Payload {
    stream: Stream,
    /// None once it was read.
    request: Option<Body>,
    waiting: Bytes,
    /// The connection has nothing more to say.
    ended: bool,
    /// It was told that there is nothing more to come.
    shut: bool,
}

impl Payload {
    /// Sends what there is of the request's body. Ready once all is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            while !self.waiting.is_empty() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting)) {
                    Ok(n) if n > 0 => self.waiting.advance(n),
                    _ => return Poll::Ready(Err(broken())),
                }
            }
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            let frame = match &mut self.request {
                Some(body) if !body.is_end_stream() => match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        // What TLS has taken but not sent would wait for ever.
                        let _ = Pin::new(&mut self.stream).poll_flush(cx);
                        return Poll::Pending;
                    }
                },
                _ => None,
            };
            match frame {
                Some(frame) => self.waiting = frame?.into_data().unwrap_or_default(),
                None => {
                    self.request = None;
                    // A connection that broke says so when it is read.
                    let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
                    self.shut = true;
                }
            }
        }
    }
}

fn broken() -> BodyError {
    BodyError::Upstream {
        flag: Flag::UpstreamConnectionTermination,
        details: "connection termination".into(),
    }
}

impl HttpBody for Payload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            this.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        let mut part = vec![0; PART];
        let mut room = ReadBuf::new(&mut part);
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut room));
        let n = room.filled().len();
        this.ended = read.is_err() || n == 0;
        Poll::Ready(match read {
            Err(_) => Some(Err(broken())),
            Ok(()) if n == 0 => None,
            Ok(()) => {
                part.truncate(n);
                Some(Ok(Frame::data(part.into())))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
