//! Writing a response: head and first bytes of the body in one write, then the body as it comes.
//!
//! At most [`FULL`] bytes and one frame wait for the client. While they do, the body is not polled: a slow reader
//! slows the upstream down.

use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::header;
use http_body::{Body as _, Frame};

use super::{
    encode::{self, Asked, Framing},
    head::{give_map, has_token},
    wire::Shared,
};
use crate::{
    http::{
        Body, ResponseHead,
        codec::{CodecOptions, H1Options},
    },
    net::Deadline,
};

/// So many bytes in front of the client are enough.
const FULL: usize = 64 * 1024;

/// Frames up to this size are copied next to their framing; a larger one is written from where it is.
const COPY: usize = 8 * 1024;

/// Buffers larger than this are not kept for the next response.
const KEPT: usize = 64 * 1024;

thread_local! {
    /// The buffer of the last response on this thread.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it is out; `close` when it was announced as the last.
    Whole { close: bool },
    /// The client, or the source of the body, broke off.
    Broken,
}

/// Sends a response. `close`: the connection's last one; none for the head of a tunnel.
pub(super) async fn send(
    wire: &Shared,
    (head, body): (ResponseHead, Body),
    asked: Asked,
    close: Option<bool>,
    interim: Interim,
    options: &CodecOptions,
) -> Sent {
    let mut out = Out::new();
    interim.finish(wire, &mut out.front);
    // What broke the request before it was answered is answered.
    let fault = wire.borrow().fault();
    let ending = body.is_end_stream();
    let close = close.map(|close| {
        close || !wire.borrow().is_request_done() || has_token(&head.headers, &header::CONNECTION, b"close")
    });
    let (framing, close) = encode::head(&mut out.front, &head, asked, ending, close, &options.h1);
    give_map(head.headers);
    let body = match framing {
        // Nothing of it may be sent.
        Framing::Bodiless => Body::Empty,
        _ => body,
    };
    let mut source = Source {
        body: Some(body),
        framing,
    };
    let mut stuck: Option<Deadline> = None;
    let sent = poll_fn(|cx| {
        if wire.borrow().is_gone() || wire.borrow().fault() != fault {
            return Poll::Ready(Err(()));
        }
        loop {
            let filled = source.fill(&mut out, cx, &options.h1);
            let before = out.left();
            let written = out.poll_write(wire, cx);
            if out.left() < before {
                stuck = None;
            }
            match (filled, written) {
                (_, Poll::Ready(Err(_))) => return Poll::Ready(Err(())),
                (Filled::End, Poll::Ready(Ok(()))) => return wire.borrow_mut().poll_flush(cx).map_err(drop),
                (Filled::Broken, Poll::Ready(Ok(()))) => return Poll::Ready(Err(())),
                (Filled::Full, Poll::Ready(Ok(()))) => continue,
                (Filled::Waits, Poll::Ready(Ok(()))) => {
                    // What TLS has taken but not sent would wait for ever.
                    if let Poll::Ready(Err(_)) = wire.borrow_mut().poll_flush(cx) {
                        return Poll::Ready(Err(()));
                    }
                }
                (_, Poll::Pending) => {
                    if let Some(limit) = options.stream_idle_timeout
                        && Pin::new(stuck.get_or_insert_with(|| Deadline::after(limit)))
                            .poll(cx)
                            .is_ready()
                    {
                        return Poll::Ready(Err(()));
                    }
                }
            }
            if wire.borrow_mut().poll_gone(cx).is_ready() {
                return Poll::Ready(Err(()));
            }
            return Poll::Pending;
        }
    })
    .await;
    out.give_back();
    match sent {
        Ok(()) => Sent::Whole {
            close: close.unwrap_or(true),
        },
        Err(()) => Sent::Broken,
    }
}

/// A response's body on its way into the buffer.
struct Source {
    /// None once it has ended; its drop completes the stream.
    body: Option<Body>,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// There is no room.
    Full,
    /// There is nothing to send now.
    Waits,
    End,
    /// The rest will not come.
    Broken,
}

impl Source {
    fn fill(&mut self, out: &mut Out, cx: &mut Context<'_>, options: &H1Options) -> Filled {
        loop {
            let Some(body) = &mut self.body else { return Filled::End };
            if out.is_full() {
                return Filled::Full;
            }
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Filled::Waits,
                Poll::Ready(frame) => frame,
            };
            let ended = frame.is_none() || body.is_end_stream();
            let fine = match frame {
                None => true,
                Some(Ok(frame)) => self.frame(frame, out, options),
                Some(Err(_)) => false,
            };
            if !fine {
                self.body = None;
                return Filled::Broken;
            }
            if ended && self.body.is_some() {
                self.body = None;
                match self.framing {
                    Framing::Chunked => encode::last_chunk(out.tail(), None, options),
                    // Fewer bytes than announced: the client must see that something is missing.
                    Framing::Length(left) if left > 0 => return Filled::Broken,
                    _ => {}
                }
            }
        }
    }

    /// Appends a frame; false when it does not fit what was announced.
    fn frame(&mut self, frame: Frame<Bytes>, out: &mut Out, options: &H1Options) -> bool {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let (Framing::Chunked, Ok(trailers)) = (self.framing, frame.into_trailers()) {
                    let trailers = options.enable_trailers.then_some(&trailers);
                    encode::last_chunk(out.tail(), trailers, options);
                    self.framing = Framing::UntilClose;
                    self.body = None;
                }
                return true;
            }
        };
        if data.is_empty() {
            return true;
        }
        match &mut self.framing {
            Framing::Bodiless => {}
            Framing::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => {
                    *left = rest;
                    out.data(data);
                }
                None => return false,
            },
            Framing::UntilClose => out.data(data),
            Framing::Chunked => {
                encode::chunk_size(out.tail(), data.len());
                out.data(data);
                out.tail().extend_from_slice(b"\r\n");
            }
        }
        true
    }
}

/// Bytes in front of the client: text, at most one large frame, and text after it.
struct Out {
    front: Vec<u8>,
    /// How much of `front` is written.
    at: usize,
    large: Bytes,
    back: Vec<u8>,
}

impl Out {
    fn new() -> Self {
        Self {
            front: SPARE.take(),
            at: 0,
            large: Bytes::new(),
            back: Vec::new(),
        }
    }

    /// Where text goes that follows all that is there.
    fn tail(&mut self) -> &mut Vec<u8> {
        if self.large.is_empty() {
            &mut self.front
        } else {
            &mut self.back
        }
    }

    fn data(&mut self, data: Bytes) {
        if data.len() <= COPY || !self.large.is_empty() {
            self.tail().extend_from_slice(&data);
        } else {
            self.large = data;
        }
    }

    fn is_full(&self) -> bool {
        !self.large.is_empty() || self.left() >= FULL
    }

    fn left(&self) -> usize {
        self.front.len() - self.at + self.large.len() + self.back.len()
    }

    fn poll_write(&mut self, wire: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left() > 0 {
            let front = self.front.get(self.at..).unwrap_or_default();
            let mut wire = wire.borrow_mut();
            let n = match self.large.is_empty() {
                true => ready!(wire.poll_write(cx, &[IoSlice::new(front)]))?,
                false => {
                    let parts = [IoSlice::new(front), IoSlice::new(&self.large), IoSlice::new(&self.back)];
                    ready!(wire.poll_write(cx, &parts))?
                }
            };
            drop(wire);
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        let front = n.min(self.front.len() - self.at);
        self.at += front;
        n -= front;
        if self.at < self.front.len() {
            return;
        }
        self.front.clear();
        self.at = 0;
        let large = n.min(self.large.len());
        self.large.advance(large);
        n -= large;
        if self.large.is_empty() {
            // What followed the large frame is in front now.
            std::mem::swap(&mut self.front, &mut self.back);
            self.at = n;
            if self.at >= self.front.len() {
                self.front.clear();
                self.at = 0;
            }
        }
    }

    fn give_back(mut self) {
        if self.front.capacity() <= KEPT {
            self.front.clear();
            SPARE.set(self.front);
        }
    }
}

/// Informational responses on their way to the client.
#[derive(Default)]
pub(super) struct Interim {
    out: Vec<u8>,
    at: usize,
}

impl Interim {
    /// What is left goes in front of the response.
    fn finish(self, wire: &Shared, out: &mut Vec<u8>) {
        out.extend_from_slice(self.out.get(self.at..).unwrap_or_default());
        out.append(&mut wire.borrow_mut().end_interim());
    }

    /// Writes what can be written now.
    pub(super) fn poll(&mut self, wire: &Shared, cx: &mut Context<'_>) -> io::Result<()> {
        let mut wire = wire.borrow_mut();
        self.out.append(&mut wire.take_interim());
        while self.at < self.out.len() {
            let part = self.out.get(self.at..).unwrap_or_default();
            match wire.poll_write(cx, &[IoSlice::new(part)]) {
                Poll::Ready(Ok(n)) if n > 0 => self.at += n,
                Poll::Ready(Ok(_)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if !self.out.is_empty() {
            self.out = Vec::new();
            self.at = 0;
            if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
                return Err(error);
            }
        }
        Ok(())
    }
}
