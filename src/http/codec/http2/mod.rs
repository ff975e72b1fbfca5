//! HTTP/2 towards the client, on the h2 library.
//!
//! [`serve`] drives the library's connection and the futures of its streams on one task. A request's head becomes a
//! [`CodecRequest`] ([`request`]) or is refused; a stream ([`stream`]) lets the handler answer it and sends the
//! response as the client's window allows; its body opens the window as it is read ([`body`]). The bytes of the
//! connection pass an [`Observer`] on their way ([`observe`]): the library keeps to itself what it resets, and
//! answers what Envoy counts or ends the connection for.

mod body;
mod frames;
mod io;
mod keepalive;
mod observe;
mod pump;
mod request;
mod stats;
mod stream;
mod timers;
mod tunnel;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{CloseReason, CodecOptions, CodecRequest, Dispatch, Handler, StreamHandle, Upgrade};
use crate::{
    http::{Body, Scheme},
    net::{Deadline, Stream},
    server::overload::ScaledTimer,
};

pub use body::Http2Body;
pub use io::Observed;
pub use keepalive::{Keepalive, Pinger};
pub use observe::{FloodLimits, Observer};
pub use pump::{Pump, Pumped};
pub use request::{library_limit, size};
pub use stats::Http2CodecStats;
pub use stream::StreamState;
pub use tunnel::tunnel_to_upstream;

use frames::NOTICE;
use io::{Counts, Socket};
use stream::{Connection, Promised};
use timers::Timers;

/// Why a stream ended before its time; the text is `%RESPONSE_CODE_DETAILS%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// `DR`: the client wanted it so, or is refused.
    Remote(&'static str),
    /// `DPE`: what the client sent is no HTTP.
    Protocol(&'static str),
    /// `OM`: the stream held much, and memory is short.
    Overload,
    /// `DC`: this side has ended the connection.
    Local(&'static str),
}

/// What waits for a slow client, of one stream.
const SEND_BUFFER: usize = 256 * 1024;
/// How long a client has to show that it has seen what was sent before, so that it can be told the last stream.
const FINAL_WORD: Duration = Duration::from_secs(1);
/// A client that resets more streams than this before they are looked at is sent away.
const PREMATURE_RESETS: usize = 200;

/// Serves HTTP/2 until the connection ends. `prefix` was read of it already.
pub(super) async fn serve<H: Handler + 'static>(
    stream: Stream,
    prefix: Bytes,
    scheme: Scheme,
    options: &CodecOptions,
    told: impl Future<Output = ()> + Unpin,
    handler: Rc<H>,
) {
    let seen = Observer::server(handler.http2_stats(), options.h2.floods);
    let socket = Rc::new(RefCell::new(stream));
    let io = Socket::new(socket.clone(), prefix);
    let counts = io.counts();
    let _counted = Counted(counts.clone(), &*handler);
    let io = Observed::new(io, seen.clone());
    let (mut drained, mut broken) = (false, false);
    let ended = match handshake(io, options).await {
        Ok(connection) => {
            let server = Server {
                scheme,
                options,
                handler: &handler,
                shared: Rc::new(Connection {
                    seen: seen.clone(),
                    drain: Cell::new(false),
                    ended: Cell::new(None),
                    written: Cell::new(0),
                    waiting: RefCell::default(),
                }),
                last_accepted: 0,
                drained: &mut drained,
                violated: false,
                broken: &mut broken,
            };
            server.run(connection, told, &socket, &counts).await
        }
        Err(ended) => ended,
    };
    if let Ended::Error(error) = &ended {
        broken |= seen.flood().is_some() || is_violation(error);
    }
    match ended {
        _ if broken && seen.flood().is_some() => handler.closing(CloseReason::Local),
        _ if broken => handler.closing(CloseReason::ProtocolError),
        Ended::Idle => handler.closing(CloseReason::Idle),
        Ended::Unanswered => handler.closing(CloseReason::Local),
        // One that is told to go, and goes before its time is up, has closed by itself, too.
        Ended::Over | Ended::Error(_) if !drained || counts.closed.get() => handler.closing(CloseReason::Remote),
        Ended::Over | Ended::Error(_) | Ended::Drained => {}
    }
    // Whoever floods is not waited for.
    if drained || broken && seen.flood().is_none() {
        linger(&socket, options, &*handler).await;
    }
}

/// The word that the connection will end: streams that cross with it are served.
#[derive(Default)]
struct Notice {
    due: bool,
    written: usize,
}

impl Notice {
    fn give(&mut self) {
        self.due = true;
    }

    /// A part of it is out: nothing may come between.
    fn is_begun(&self) -> bool {
        self.due && self.written > 0
    }

    fn poll(&mut self, socket: &RefCell<Stream>, counts: &Counts, cx: &mut Context<'_>) -> Poll<()> {
        while self.due {
            let left = NOTICE.get(self.written..).unwrap_or_default();
            let mut socket = socket.borrow_mut();
            match ready!(Pin::new(&mut *socket).poll_write(cx, left)) {
                Ok(n) if n > 0 => {
                    counts.wrote(n);
                    self.written += n;
                }
                // The library meets the same error.
                _ => self.written = NOTICE.len(),
            }
            if self.written == NOTICE.len() {
                self.due = false;
                // What TLS has taken but not sent would wait for ever.
                let _ = Pin::new(&mut *socket).poll_flush(cx);
            }
        }
        Poll::Ready(())
    }
}

/// How a connection ended.
enum Ended {
    /// Nothing came that would have made it a connection.
    Idle,
    /// Both sides had said all.
    Over,
    /// One of them broke it.
    Error(h2::Error),
    /// The client did not answer a PING.
    Unanswered,
    /// It was told to go, and had its time.
    Drained,
}

/// The library saw frames that must not be.
fn is_violation(error: &h2::Error) -> bool {
    error.is_library() && !error.is_io()
}

async fn handshake(
    io: Observed<Socket>,
    options: &CodecOptions,
) -> Result<server::Connection<Observed<Socket>, Bytes>, Ended> {
    let h2 = &options.h2;
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(h2.max_streams)
        .initial_window_size(h2.stream_window)
        .initial_connection_window_size(h2.connection_window)
        .max_header_list_size(library_limit(options.h1.max_header_bytes))
        .max_pending_accept_reset_streams(PREMATURE_RESETS)
        .header_table_size(h2.header_table)
        .max_send_buffer_size(SEND_BUFFER);
    if h2.allow_connect {
        builder.enable_connect_protocol();
    }
    let connecting = builder.handshake(io);
    let idle = async {
        match options.idle_timeout {
            Some(limit) => Deadline::after(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        connected = connecting => connected.map_err(Ended::Error),
        () = idle => Err(Ended::Idle),
    }
}

/// A connection while it is served.
struct Server<'a, H> {
    scheme: Scheme,
    options: &'a CodecOptions,
    handler: &'a Rc<H>,
    shared: Rc<Connection>,
    /// The highest stream that the library has handed over.
    last_accepted: u32,
    drained: &'a mut bool,
    /// The client broke the protocol, and its connection ends with that.
    violated: bool,
    broken: &'a mut bool,
}

impl<H: Handler + 'static> Server<'_, H> {
    async fn run(
        mut self,
        mut connection: server::Connection<Observed<Socket>, Bytes>,
        mut told: impl Future<Output = ()> + Unpin,
        socket: &RefCell<Stream>,
        counts: &Counts,
    ) -> Ended {
        let handler = self.handler.clone();
        let seen = self.shared.seen.clone();
        let mut streams = FuturesUnordered::new();
        let mut timers = Timers::new(self.options, &*handler);
        let keepalive = self.options.h2.keepalive;
        let mut pinger = keepalive.and_then(|config| Some(Pinger::new(config, connection.ping_pong()?)));
        let mut end: Option<Deadline> = None;
        let mut shed = false;
        let mut notice = Notice::default();
        let mut final_word = false;
        poll_fn(|cx| {
            if notice.is_begun() && notice.poll(socket, counts, cx).is_pending() {
                return Poll::Pending;
            }
            // Streams first: what they write goes out with the look at the connection that follows.
            loop {
                while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
                let next = connection.poll_accept(cx);
                self.library_resets();
                if std::mem::take(&mut self.violated) && !std::mem::replace(self.broken, true) {
                    connection.abrupt_shutdown(Reason::PROTOCOL_ERROR);
                    cx.waker().wake_by_ref();
                }
                match next {
                    Poll::Ready(None | Some(Err(_))) if shed => return Poll::Ready(Ended::Unanswered),
                    Poll::Ready(None) => return Poll::Ready(Ended::Over),
                    Poll::Ready(Some(Err(error))) => {
                        self.note_end(&error);
                        return Poll::Ready(Ended::Error(error));
                    }
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        match handler.dispatched() {
                            Dispatch::Serve | Dispatch::Refuse => {}
                            Dispatch::GoAway => connection.graceful_shutdown(),
                            Dispatch::Close => {
                                connection.abrupt_shutdown(Reason::NO_ERROR);
                                shed = true;
                            }
                        }
                        // The client is told to go, and nothing of this is answered.
                        if shed {
                            continue;
                        }
                        if let Some(stream) = self.accept(request, respond) {
                            streams.push(stream);
                        }
                    }
                    Poll::Pending => {
                        // All that could be written was.
                        self.shared.written.set(self.shared.written.get() + 1);
                        let waiting = std::mem::take(&mut *self.shared.waiting.borrow_mut());
                        waiting.into_iter().for_each(Waker::wake);
                        break;
                    }
                }
            }
            if let Some(pinger) = &mut pinger
                && pinger.poll(cx, &seen).is_ready()
            {
                seen.stats.local().keepalive_timeout.inc();
                let reset = Reset::Local("downstream_local_disconnect(http2_ping_timeout)");
                self.shared.ended.set(Some(reset));
                return Poll::Ready(Ended::Unanswered);
            }
            if end.is_none() {
                let reason = match self.shared.drain.get() {
                    true => Some(CloseReason::Local),
                    false if Pin::new(&mut told).poll(cx).is_ready() => {
                        handler.drain_started();
                        Some(CloseReason::Drain)
                    }
                    false => match timers.poll(cx) {
                        Poll::Ready(reason) => Some(reason),
                        Poll::Pending => None,
                    },
                };
                if let Some(reason) = reason {
                    handler.closing(reason);
                    *self.drained = true;
                    self.shared.drain.set(true);
                    notice.give();
                    end = Some(Deadline::after(self.options.drain_timeout));
                }
            }
            // Else the library is in the middle of a frame, and comes back to it.
            if seen.wrote_whole_frames() {
                let _ = notice.poll(socket, counts, cx);
            }
            if let Some(deadline) = &mut end
                && Pin::new(&mut *deadline).poll(cx).is_ready()
            {
                if !std::mem::replace(&mut final_word, true) {
                    // The notice is out; which stream is the last one is told now.
                    seen.leave_out_notice();
                    connection.graceful_shutdown();
                    *deadline = Deadline::after(FINAL_WORD);
                    let _ = Pin::new(deadline).poll(cx);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if streams.is_empty() && !connection.has_streams() {
                    return Poll::Ready(Ended::Drained);
                }
                // Those that are left are waited for; a look now and then is enough.
                *deadline = Deadline::after(self.options.drain_timeout.max(Duration::from_millis(100)));
                let _ = Pin::new(deadline).poll(cx);
            }
            Poll::Pending
        })
        .await
    }

    /// A stream of the client's; none when it is refused.
    fn accept(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<impl Future<Output = ()> + use<H>> {
        let (parts, recv) = request.into_parts();
        let id = respond.stream_id().as_u32();
        self.last_accepted = id;
        let stats = self.shared.seen.stats.local();
        let read = match request::read(parts, self.scheme, &self.options.h1) {
            Ok(read) => read,
            Err(refused) => {
                refused.count(stats);
                self.handler.clone().stream_refused(refused.reset());
                self.shared.seen.expect_reset(id);
                let malformed = refused.is_malformed();
                self.violated |= malformed && !self.options.h2.stream_errors;
                respond.send_reset(match malformed {
                    true => Reason::PROTOCOL_ERROR,
                    false => Reason::INTERNAL_ERROR,
                });
                return None;
            }
        };
        stats.dropped_headers_with_underscores.add(read.dropped);
        let tunnels = read.extended || read.head.method == Method::CONNECT;
        let state = StreamState::new(self.shared.clone(), respond, read.extended);
        let (mut upgrade, mut promised, mut incoming, mut body) = (None, None, None, Body::Empty);
        if tunnels {
            let (taker, promise) = Upgrade::new();
            upgrade = Some(promise);
            promised = Some(Promised { taker, body: recv });
        } else if !recv.is_end_stream() {
            let read = Http2Body::of_request(recv, &self.options.h1, &self.shared.seen.stats);
            incoming = Some(read.incoming());
            body = Body::Http2(read);
        }
        let request = CodecRequest {
            head: read.head,
            body,
            upgrade,
            header_bytes: read.bytes,
            scheme_given: true,
            handle: StreamHandle::http2(state.clone()),
        };
        let full = self.options.flush_timeout;
        let patience = full.map(|full| self.handler.scaled(ScaledTimer::StreamFlush, full));
        Some(stream::run(
            state,
            request,
            promised,
            incoming,
            self.handler.clone(),
            patience,
        ))
    }

    /// What is told of the streams that end with the connection, and of the one that broke it.
    fn note_end(&self, error: &h2::Error) {
        let seen = &self.shared.seen;
        let reset = match seen.flood() {
            Some(flood) => Reset::Protocol(flood.details()),
            None if is_violation(error) => Reset::Protocol("codec_error:The_user_callback_function_failed"),
            None => return,
        };
        self.shared.ended.set(Some(reset));
        if seen.flood().is_none() && seen.highest_stream() > self.last_accepted {
            self.handler
                .clone()
                .stream_refused(Reset::Protocol("http2.invalid.header.field"));
        }
    }

    /// Counts what the library has reset, and decides whether the connection ends with it.
    fn library_resets(&mut self) {
        for (id, code) in self.shared.seen.take_library_resets() {
            if Reason::from(code) != Reason::PROTOCOL_ERROR {
                continue;
            }
            self.shared.seen.stats.local().rx_messaging_error.inc();
            // One that was a request is told by itself.
            if id <= self.last_accepted {
                continue;
            }
            // A body that is not as long as announced ends its stream only.
            let details = match self.shared.seen.has_body(id) {
                true => "http2.remote_reset",
                false => {
                    self.violated |= !self.options.h2.stream_errors;
                    "http2.invalid.header.field"
                }
            };
            self.handler.clone().stream_refused(Reset::Protocol(details));
        }
    }
}

/// Ends the connection in an orderly way: what the client still sends is read for a while, lest the kernel answer it
/// with a reset that takes our last bytes away.
async fn linger(socket: &RefCell<Stream>, options: &CodecOptions, handler: &impl Handler) {
    let Some(limit) = options.delayed_close else { return };
    let mut sink = vec![0; 4096];
    // Best effort: the client may well be gone.
    let shut = async {
        let _ = poll_fn(|cx| Pin::new(&mut *socket.borrow_mut()).poll_shutdown(cx)).await;
        loop {
            let mut buffer = ReadBuf::new(&mut sink);
            let read = poll_fn(|cx| Pin::new(&mut *socket.borrow_mut()).poll_read(cx, &mut buffer)).await;
            if read.is_err() || buffer.filled().is_empty() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = shut => {}
        () = Deadline::after(limit) => handler.closing(CloseReason::DelayedClose),
    }
}

/// Counts what was read and written, however the connection ends.
struct Counted<'a, H: Handler>(Rc<Counts>, &'a H);

impl<H: Handler> Drop for Counted<'_, H> {
    fn drop(&mut self) {
        let (read, written) = self.0.take();
        self.1.count_bytes(read, written);
    }
}

#[cfg(test)]
mod tests;
