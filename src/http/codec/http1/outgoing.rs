//! What is written: text and bodies, in as few writes as possible and with a bound on what waits.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame};

use super::encode::{self, Framing};
use crate::http::{Body, BodyError};

/// So many bytes in front of the peer are enough.
const FULL: usize = 64 * 1024;

/// Frames up to this size are copied next to their framing; a larger one is written from where it is.
const COPY: usize = 8 * 1024;

/// Buffers larger than this are not kept for the next message.
const KEPT: usize = 64 * 1024;

thread_local! {
    /// The buffer of the last message on this thread.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A message's body on its way into the buffer.
pub(super) struct Source {
    /// None once it has ended; its drop completes the stream.
    body: Option<Body>,
    framing: Framing,
    /// The rest will not come.
    broken: bool,
    /// Why it will not.
    error: Option<BodyError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// There is no room.
    Full,
    /// There is nothing to send now.
    Waits,
    End,
    /// The rest will not come.
    Broken,
}

impl Source {
    pub(super) fn new(body: Body, framing: Framing) -> Self {
        Self {
            body: Some(body),
            framing,
            broken: false,
            error: None,
        }
    }

    /// Why there is no more to send, after [`Filled::Broken`].
    pub(super) fn take_error(&mut self) -> Option<BodyError> {
        self.error.take()
    }

    /// Whether all bytes that were announced are in the buffer, though the body may not know that it has ended.
    pub(super) fn has_all(&self) -> bool {
        self.body.is_none() || matches!(self.framing, Framing::Length(0))
    }

    /// Appends what there is; `trailers`: they are written, too.
    pub(super) fn fill(&mut self, out: &mut Out, cx: &mut Context<'_>, trailers: bool) -> Filled {
        if self.broken {
            return Filled::Broken;
        }
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
                Some(Ok(frame)) => self.frame(frame, out, trailers),
                Some(Err(error)) => {
                    self.error = Some(error);
                    false
                }
            };
            if !fine {
                self.body = None;
                self.broken = true;
                return Filled::Broken;
            }
            if ended && self.body.is_some() {
                self.body = None;
                match self.framing {
                    Framing::Chunked => encode::last_chunk(out.tail(), None),
                    // Fewer bytes than announced: the peer must see that something is missing.
                    Framing::Length(left) if left > 0 => {
                        self.broken = true;
                        return Filled::Broken;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Appends a frame; false when it does not fit what was announced.
    fn frame(&mut self, frame: Frame<Bytes>, out: &mut Out, enabled: bool) -> bool {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let (Framing::Chunked, Ok(trailers)) = (self.framing, frame.into_trailers()) {
                    encode::last_chunk(out.tail(), enabled.then_some(&trailers));
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

/// Bytes in front of the peer: text, at most one large frame, and text after it.
pub(super) struct Out {
    pub(super) front: Vec<u8>,
    /// How much of `front` is written.
    at: usize,
    large: Bytes,
    back: Vec<u8>,
}

impl Out {
    pub(super) fn new() -> Self {
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

    pub(super) fn left(&self) -> usize {
        self.front.len() - self.at + self.large.len() + self.back.len()
    }

    /// Writes all there is.
    pub(super) fn poll_write(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while self.left() > 0 {
            let front = self.front.get(self.at..).unwrap_or_default();
            let n = match self.large.is_empty() {
                true => ready!(write(&[IoSlice::new(front)]))?,
                false => {
                    let parts = [IoSlice::new(front), IoSlice::new(&self.large), IoSlice::new(&self.back)];
                    ready!(write(&parts))?
                }
            };
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

    pub(super) fn give_back(mut self) {
        if self.front.capacity() <= KEPT {
            self.front.clear();
            SPARE.set(self.front);
        }
    }
}
