//! Writing a response: head and first bytes of the body in one write, then the body as it comes.
//!
//! While bytes wait for the client, the body is not polled: a slow reader slows the upstream down.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::header;
use http_body::Body as _;

use super::{
    encode::{self, Asked, Framing},
    head::{give_map, has_token},
    outgoing::{Filled, Out, Source},
    wire::{SentHead, Shared},
};
use crate::{
    http::{Body, ResponseHead, codec::CodecOptions},
    net::Deadline,
};

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it is out; `close` when it was announced as the last.
    Whole { close: bool },
    /// The client, or the source of the body, broke off.
    Broken,
}

/// Sends a response. `close`: the connection's last one; none for the head of a tunnel. `patience`: how long a client
/// may not read.
pub(super) async fn send(
    wire: &Shared,
    (head, body): (ResponseHead, Body),
    asked: Asked,
    close: Option<bool>,
    interim: Interim,
    options: &CodecOptions,
    patience: Option<Duration>,
) -> Sent {
    let mut out = Out::new();
    interim.finish(wire, &mut out.front);
    // What broke the request before it was answered is answered.
    let fault = wire.borrow().fault();
    let ending = body.is_end_stream();
    let close = close.map(|close| {
        let wire = wire.borrow();
        // Of a drain that is only a word to the client.
        let last = wire.draining.is_none() && has_token(&head.headers, &header::CONNECTION, b"close");
        close || !wire.is_request_done() || last
    });
    let start = out.front.len();
    let (framing, close) = encode::head(&mut out.front, &head, asked, ending, close, options.h1.case);
    let written = out.front.get(start..).unwrap_or_default();
    wire.borrow_mut().sent = Some(SentHead {
        total: written.len() as u64,
        line: written.iter().position(|b| *b == b'\n').map_or(0, |at| at as u64 + 1),
        chunked: matches!(framing, Framing::Chunked),
    });
    give_map(head.headers);
    let body = match framing {
        // Nothing of it may be sent.
        Framing::Bodiless => Body::Empty,
        _ => body,
    };
    let mut source = Source::new(body, framing);
    let mut stuck: Option<Deadline> = None;
    let sent = poll_fn(|cx| {
        if wire.borrow().is_gone() || wire.borrow().fault() != fault {
            return Poll::Ready(Err(()));
        }
        loop {
            let filled = source.fill(&mut out, cx, options.h1.enable_trailers);
            let before = out.left();
            let written = out.poll_write(|parts| wire.borrow_mut().poll_write(cx, parts));
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
                    if let Some(limit) = patience
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
