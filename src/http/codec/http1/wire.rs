//! The bytes of one connection, shared by its task and by the body of the request it serves.
//!
//! A stream wakes only the task that polled it last. So there is one reader at a time: the body, from when it is
//! polled until it has ended, and the connection's task otherwise. The task is woken when the body ends, is
//! dropped, or finds something that ends the connection.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::{
    CodecError,
    chunked::Step,
    decoder::Decoder,
    head::{self, Length},
    inbound::{self, BODY_READ},
};
use crate::{http::codec::H1Options, net::Stream};

/// How much of what follows a request is read while it is being answered: enough to see that the client has gone
/// away behind a pipelined request or a body that nobody reads yet.
const AHEAD: usize = 16 * 1024;

/// A connection's bytes, owned by its task and its request's body.
pub(super) type Shared = Rc<RefCell<Wire>>;

/// Why no head came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    Refused(CodecError),
    /// The client closed; `partial` when it had begun a request.
    Closed {
        partial: bool,
    },
}

/// See the module.
pub(super) struct Wire {
    stream: Stream,
    /// Read, and not taken yet.
    inbound: BytesMut,
    /// How far `inbound` was searched for the end of a head.
    searched: usize,
    /// Empty lines in front of the next head, in bytes.
    skipped: usize,
    decoder: Decoder,
    body_read: usize,
    options: H1Options,
    /// The request's body broke the protocol.
    fault: Option<CodecError>,
    /// The client has gone.
    gone: bool,
    /// The stream's read waker is the body's.
    body_waits: bool,
    /// The connection's task.
    task: Option<Waker>,
    /// Informational responses to be written.
    interim: Vec<u8>,
    read: u64,
    written: u64,
    /// The head of the current response, once it is written.
    pub(super) sent: Option<SentHead>,
    /// Since when responses say that the connection ends, which it does after `drain_timeout`.
    pub(super) draining: Option<Instant>,
}

/// What was written of a response's head.
#[derive(Debug, Clone, Copy)]
pub struct SentHead {
    /// All of it, in bytes.
    pub total: u64,
    /// The status line with its end.
    pub line: u64,
    /// The body follows in chunks.
    pub chunked: bool,
}

impl Wire {
    /// A connection of which `prefix` was read already.
    pub(super) fn new(stream: Stream, prefix: BytesMut, options: H1Options) -> Self {
        Self {
            stream,
            read: prefix.len() as u64,
            inbound: prefix,
            searched: 0,
            skipped: 0,
            decoder: Decoder::Done,
            body_read: BODY_READ,
            options,
            fault: None,
            gone: false,
            body_waits: false,
            task: None,
            interim: Vec::new(),
            written: 0,
            sent: None,
            draining: None,
        }
    }

    /// Bytes read and written since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.read), std::mem::take(&mut self.written))
    }

    /// Limits and switches.
    pub(super) fn options(&self) -> &H1Options {
        &self.options
    }

    /// What is wrong with the request's body.
    pub(super) fn fault(&self) -> Option<CodecError> {
        self.fault
    }

    /// Whether the client is known to have gone.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether the request was read to its end.
    pub(super) fn is_request_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether there are bytes of a next request.
    pub(super) fn has_bytes(&self) -> bool {
        !self.inbound.is_empty()
    }

    /// The next request's head, up to and with its empty line.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, NoHead>> {
        loop {
            self.skip_empty_lines().map_err(NoHead::Refused)?;
            // A CR alone may be the first half of another empty line.
            if !matches!(*self.inbound, [] | [b'\r']) {
                let end = match head::find_end(&self.inbound, &mut self.searched) {
                    None => head::check_start(&self.inbound, &self.options).map_err(NoHead::Refused)?,
                    end => end,
                };
                if let Some(end) = end {
                    self.searched = 0;
                    self.skipped = 0;
                    return Poll::Ready(Ok(match end == self.inbound.len() {
                        true => std::mem::take(&mut self.inbound).freeze(),
                        false => self.inbound.split_to(end).freeze(),
                    }));
                }
            }
            match ready!(self.poll_ahead(cx)) {
                Ok(n) if n > 0 => {}
                _ => {
                    let partial = !self.inbound.is_empty();
                    return Poll::Ready(Err(NoHead::Closed { partial }));
                }
            }
        }
    }

    fn skip_empty_lines(&mut self) -> Result<(), CodecError> {
        if self.searched > 0 {
            return Ok(());
        }
        let blank = match self.inbound.iter().position(|b| !matches!(b, b'\r' | b'\n')) {
            Some(blank) => blank,
            // The last CR may be half an end.
            None => self.inbound.len() - usize::from(self.inbound.ends_with(b"\r")),
        };
        let lines = self.inbound.get(..blank).unwrap_or_default();
        if lines.windows(2).any(|w| matches!(w, [b'\r', b'\r'])) || lines.ends_with(b"\r") {
            return Err(CodecError::Syntax);
        }
        self.inbound.advance(blank);
        self.skipped += blank;
        if self.skipped > self.options.max_header_bytes {
            return Err(CodecError::HeadersTooLarge);
        }
        if self.inbound.is_empty() {
            self.inbound = BytesMut::new();
        }
        Ok(())
    }

    /// Room that is held for bytes that were read.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.inbound.capacity()
    }

    /// Starts the body of a request whose head was read.
    pub(super) fn start_body(&mut self, length: Length) {
        self.fault = None;
        self.sent = None;
        self.interim.clear();
        self.decoder = length.into();
    }

    /// How many trailers of the request were left out because of underscores.
    pub(super) fn dropped_trailers(&self) -> u32 {
        self.decoder.dropped()
    }

    /// Lets go of what a request leaves, so that a connection that waits holds nothing.
    pub(super) fn end_request(&mut self) {
        self.decoder = Decoder::Done;
        self.body_read = BODY_READ;
        if self.inbound.is_empty() {
            self.inbound = BytesMut::new();
        }
    }

    /// Remembers the connection's task; ready when the client has gone.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gone {
            return Poll::Ready(());
        }
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
        while !self.body_waits && self.inbound.len() < AHEAD {
            match ready!(self.poll_ahead(cx)) {
                Ok(n) if n > 0 => {}
                _ => {
                    self.gone = true;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Reads what there is through the thread's buffer.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let polled = inbound::read_ahead(&mut self.stream, &mut self.inbound, cx);
        self.count_read(polled)
    }

    fn poll_read_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = match &self.decoder {
            Decoder::Exact(left) => Some(*left),
            _ => None,
        };
        let polled = inbound::read_body(&mut self.stream, &mut self.inbound, left, &mut self.body_read, cx);
        self.count_read(polled)
    }

    fn count_read(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &polled {
            self.read += *n as u64;
        }
        polled
    }

    /// Bytes of the body that are still to come, when that is known.
    pub(super) fn body_left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// The next part of the request's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, BodyBroken>> {
        self.body_waits = false;
        loop {
            if self.fault.is_some() || self.gone {
                return Poll::Ready(Err(BodyBroken));
            }
            let step = match self.decoder.decode(&mut self.inbound, &self.options) {
                Ok(Step::Starved) => None,
                Ok(step) => Some(step),
                Err(fault) => {
                    self.fault = Some(fault);
                    self.wake_task();
                    continue;
                }
            };
            if let Some(step) = step {
                self.decoder.look_ahead(&mut self.inbound);
                if self.is_request_done() {
                    self.wake_task();
                }
                return Poll::Ready(Ok(step));
            }
            match self.poll_read_body(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => {
                    self.gone = true;
                    self.wake_task();
                }
                Poll::Pending => {
                    self.body_waits = true;
                    return Poll::Pending;
                }
            }
        }
    }

    /// The body was dropped.
    pub(super) fn drop_body(&mut self) {
        self.body_waits = false;
        if !self.is_request_done() {
            self.wake_task();
        }
    }

    fn wake_task(&mut self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Queues an informational response.
    pub(super) fn inform(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.interim);
        self.wake_task();
    }

    /// The response starts: nothing informational comes any more.
    pub(super) fn end_interim(&mut self) -> Vec<u8> {
        self.take_interim()
    }

    /// Takes what [`Self::inform`] queued.
    pub(super) fn take_interim(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.interim)
    }

    /// Writes some of `parts`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = match parts {
            [only] => Pin::new(&mut self.stream).poll_write(cx, only),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, parts),
        };
        if let Poll::Ready(Ok(n)) = written {
            self.written += n as u64;
        }
        written
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            // Envoy's end of a connection without half close is a reset there, which its drop is.
            Stream::Internal(stream) => Pin::new(stream).poll_flush(cx),
            stream => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Reads and drops what still comes; ready at its end.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.inbound.clear();
            match ready!(self.poll_ahead(cx)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Gives the stream away, with what was read of it.
    pub(super) fn take_stream(&mut self) -> (Stream, Bytes) {
        self.gone = true;
        let nothing = Stream::Other(Box::pin(tokio::io::join(tokio::io::empty(), tokio::io::sink())));
        let stream = std::mem::replace(&mut self.stream, nothing);
        (stream, std::mem::take(&mut self.inbound).freeze())
    }
}

/// The body cannot be read on; the connection knows why.
#[derive(Debug)]
pub(super) struct BodyBroken;

/// Trailers or data, as a frame.
pub(super) fn frame(step: Step) -> Option<http_body::Frame<Bytes>> {
    match step {
        Step::Data(bytes) => Some(http_body::Frame::data(bytes)),
        Step::End(Some(trailers)) => Some(http_body::Frame::trailers(trailers)),
        Step::End(None) | Step::Starved => None,
    }
}
