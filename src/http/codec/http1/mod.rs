//! HTTP/1 towards the client: one task per connection, one request after the other.
//!
//! [`serve`] reads a head ([`head`]), lets the handler answer it, writes the response ([`respond`]), and starts
//! over or ends the connection. The request's body is pulled by whoever reads it ([`body`]) from the bytes that it
//! shares with this task ([`wire`]). What cannot be read as HTTP becomes a [`CodecError`], which the handler turns
//! into a response like any other.
//!
//! A request is understood as Envoy 1.40 does with its defaults, or refused: no bytes may be framed differently
//! here and upstream.

mod body;
mod chunked;
pub(crate) mod client;
mod decoder;
mod encode;
mod error;
mod handle;
mod head;
mod inbound;
mod nominated;
mod outgoing;
mod respond;
mod stats;
mod target;
mod timers;
mod upgraded;
mod wire;

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::Method;
use tokio::sync::oneshot;

use super::{CloseReason, CodecOptions, CodecRequest, Dispatch, Handler, StreamHandle, Upgrade};
use crate::{
    http::{Body, Scheme},
    net::{Deadline, Stream},
    server::overload::ScaledTimer,
};

pub use body::RequestBody;
pub use error::CodecError;
pub use handle::WireHandle;
pub(super) use inbound::read_ahead;
pub use stats::Http1CodecStats;
pub use wire::SentHead;

use encode::Asked;
use head::{Head, Length};
use respond::{Interim, Sent};
use timers::Timers;
use wire::{NoHead, Shared, Wire};

/// Serves HTTP/1 until the connection ends. `prefix` was read of it already.
pub(super) async fn serve<H: Handler + 'static>(
    stream: Stream,
    prefix: BytesMut,
    scheme: Scheme,
    options: &CodecOptions,
    mut told: impl Future<Output = ()> + Unpin,
    handler: Rc<H>,
) {
    let wire: Shared = Rc::new(RefCell::new(Wire::new(stream, prefix, options.h1.clone())));
    let counted = handler.clone();
    let _counted = Counted(&wire, &*counted);
    let mut timers = Timers::new(options, &*counted);
    let mut end: Option<Deadline> = None;
    loop {
        let mut asked = false;
        let next = poll_fn(|cx| {
            let mut bytes = wire.borrow_mut();
            let head = bytes.poll_head(cx);
            let partial = bytes.has_bytes();
            drop(bytes);
            let came = partial || matches!(head, Poll::Ready(Ok(_)));
            if came && !std::mem::replace(&mut asked, true) {
                match counted.dispatched() {
                    Dispatch::Serve | Dispatch::GoAway => {}
                    Dispatch::Refuse => {
                        return Poll::Ready(Err(Stop::NoHead(NoHead::Refused(CodecError::Overload))));
                    }
                    Dispatch::Close => return Poll::Ready(Err(Stop::Overload)),
                }
            }
            if let Poll::Ready(head) = head {
                return Poll::Ready(head.map_err(Stop::NoHead));
            }
            let draining = wire.borrow().draining;
            match (&mut end, draining) {
                _ if partial => {}
                (Some(end), _) => {
                    if Pin::new(end).poll(cx).is_ready() {
                        return Poll::Ready(Err(Stop::Close(CloseReason::Drain)));
                    }
                }
                (end, Some(since)) => {
                    *end = Some(Deadline::at(since + options.drain_timeout));
                    cx.waker().wake_by_ref();
                }
                (None, None) => {
                    if Pin::new(&mut told).poll(cx).is_ready() {
                        handler.drain_started();
                        // Whoever has asked for nothing yet need not be told.
                        if !timers.had_request() {
                            return Poll::Ready(Err(Stop::Close(CloseReason::Drain)));
                        }
                        wire.borrow_mut().draining = Some(Instant::now());
                        cx.waker().wake_by_ref();
                    }
                }
            }
            timers.poll(cx, partial).map(Err)
        })
        .await;
        timers.head_ended();
        let head = match next {
            Ok(block) => {
                let bytes = block.len() as u64;
                head::parse(&block, scheme, &options.h1).map(|head| (head, bytes))
            }
            Err(Stop::NoHead(NoHead::Refused(error))) => Err(error),
            Err(Stop::NoHead(NoHead::Closed { partial })) => {
                handler.closing(CloseReason::Remote);
                if partial {
                    handler.head_cut();
                }
                return;
            }
            Err(Stop::Overload) => return handler.closing(CloseReason::Local),
            Err(Stop::Close(reason)) => {
                handler.closing(reason);
                // A client that was answered has time to close first.
                return close(&wire, options, &*handler, timers.had_request()).await;
            }
        };
        let end = match head {
            // Boxed, so that a connection that waits does not keep room for it.
            Ok((head, bytes)) => {
                let mut exchange = Box::pin(exchange(&wire, head, bytes, options, &handler));
                poll_fn(|cx| {
                    let draining = wire.borrow().draining.is_some();
                    if !draining && Pin::new(&mut told).poll(cx).is_ready() {
                        handler.drain_started();
                        wire.borrow_mut().draining = Some(Instant::now());
                    }
                    exchange.as_mut().poll(cx)
                })
                .await
            }
            Err(error) => {
                Box::pin(refuse(&wire, error, options, &handler)).await;
                End::Linger
            }
        };
        let (read, written) = wire.borrow_mut().take_counts();
        handler.count_bytes(read, written);
        match end {
            End::KeepAlive => {}
            End::Close | End::Linger => {
                handler.closing(CloseReason::Local);
                return close(&wire, options, &*handler, matches!(end, End::Linger)).await;
            }
            End::Gone => return,
        }
        handler.headers_dropped(wire.borrow().dropped_trailers());
        wire.borrow_mut().end_request();
        timers.request_ended();
    }
}

/// Why no request follows.
enum Stop {
    NoHead(NoHead),
    Close(CloseReason),
    /// Nothing is answered.
    Overload,
}

/// What becomes of the connection after a request.
enum End {
    /// The next request.
    KeepAlive,
    /// Closes; the client has said all it had to say.
    Close,
    /// Closes once the client had time to read the answer to what it may still be sending.
    Linger,
    /// Nobody is there any more.
    Gone,
}

/// One request and its response.
async fn exchange<H: Handler + 'static>(
    wire: &Shared,
    head: Head,
    header_bytes: u64,
    options: &CodecOptions,
    handler: &Rc<H>,
) -> End {
    let asked = Asked {
        http_10: head.request.version < http::Version::HTTP_11,
        head: head.request.method == Method::HEAD,
        connect: head.request.method == Method::CONNECT,
    };
    let keep_alive = head.keep_alive;
    wire.borrow_mut().start_body(head.length);
    handler.headers_dropped(head.dropped);
    let (upgrade, taker) = match head.length {
        Length::Upgrade => {
            let (taker, upgrade) = Upgrade::new();
            (Some(upgrade), Some(taker))
        }
        _ => (None, None),
    };
    let request = CodecRequest {
        head: head.request,
        body: match head.length {
            Length::None | Length::Upgrade => Body::Empty,
            Length::Exact(_) | Length::Chunked | Length::UntilClose => Body::Http1(RequestBody::new(wire.clone())),
        },
        upgrade,
        header_bytes,
        scheme_given: head.scheme_given,
        handle: StreamHandle::http1(WireHandle::new(wire.clone())),
    };
    // Boxed apart: a long response does not keep room for what led to it.
    let mut answering = Box::pin(handler.clone().handle(request));
    let mut interim = Interim::default();
    let mut begun = false;
    let answer = poll_fn(|cx| {
        // A client that has closed its side is not answered, as in Envoy.
        if wire.borrow().is_gone() || std::mem::replace(&mut begun, true) && wire.borrow_mut().poll_gone(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if interim.poll(wire, cx).is_err() || wire.borrow_mut().poll_gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await;
    let Some(answer) = answer else {
        handler.closing(CloseReason::Remote);
        return End::Gone;
    };
    drop(answering);
    let switching =
        answer.0.status == http::StatusCode::SWITCHING_PROTOCOLS || asked.connect && answer.0.status.is_success();
    let patience = patience(options, &**handler);
    if let Some(taker) = taker.filter(|taker| switching && !taker.is_closed()) {
        return match respond::send(wire, answer, asked, None, interim, options, patience).await {
            Sent::Whole { .. } => tunnel(wire, taker).await,
            Sent::Broken => End::Gone,
        };
    }
    match respond::send(wire, answer, asked, Some(!keep_alive), interim, options, patience).await {
        Sent::Whole { close: false } if wire.borrow().is_request_done() => End::KeepAlive,
        Sent::Whole { .. } if wire.borrow().is_request_done() && !keep_alive => End::Close,
        Sent::Whole { .. } => End::Linger,
        Sent::Broken => {
            if wire.borrow().is_gone() {
                handler.closing(CloseReason::Remote);
            }
            End::Gone
        }
    }
}

/// How long a client may leave a response unread.
fn patience<H: Handler>(options: &CodecOptions, handler: &H) -> Option<Duration> {
    options
        .flush_timeout
        .map(|full| handler.scaled(ScaledTimer::StreamFlush, full))
}

/// Answers what never became a request.
async fn refuse<H: Handler>(wire: &Shared, error: CodecError, options: &CodecOptions, handler: &Rc<H>) {
    handler.closing(CloseReason::ProtocolError);
    let answer = handler.clone().refuse(error).await;
    let (interim, patience) = (Interim::default(), patience(options, &**handler));
    respond::send(wire, answer, Asked::UNKNOWN, Some(true), interim, options, patience).await;
}

/// Hands the bytes over, and waits until whoever has them is done.
async fn tunnel(wire: &Shared, taker: oneshot::Sender<Stream>) -> End {
    let (stream, read) = wire.borrow_mut().take_stream();
    let (stream, ended) = upgraded::upgraded(stream, read);
    if taker.send(stream).is_ok() {
        // An error is the end, too.
        let _ = ended.await;
    }
    End::Gone
}

/// Ends the connection in an orderly way. `linger`: what the client still sends is read for a while, lest the
/// kernel answer it with a reset that takes our last bytes away.
async fn close(wire: &Shared, options: &CodecOptions, handler: &impl Handler, linger: bool) {
    // Best effort: the client may well be gone.
    let shut = async {
        let _ = poll_fn(|cx| wire.borrow_mut().poll_shutdown(cx)).await;
        if linger {
            poll_fn(|cx| wire.borrow_mut().poll_discard(cx)).await;
        }
    };
    match options.delayed_close {
        Some(limit) => {
            tokio::select! {
                biased;
                () = shut => {}
                () = Deadline::after(limit) => handler.closing(CloseReason::DelayedClose),
            }
        }
        None if linger => {
            let _ = poll_fn(|cx| wire.borrow_mut().poll_flush(cx)).await;
        }
        None => shut.await,
    }
}

/// Counts what was read and written, however the connection ends.
struct Counted<'a, H: Handler>(&'a Shared, &'a H);

impl<H: Handler> Drop for Counted<'_, H> {
    fn drop(&mut self) {
        let (read, written) = self.0.borrow_mut().take_counts();
        self.1.count_bytes(read, written);
    }
}

#[cfg(test)]
mod tests;
