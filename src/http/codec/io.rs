//! The bytes of a downstream connection under the codec: what was read while finding out the protocol
//! comes first, bytes are counted, and the codec's own error replies are replaced.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::{Buf, Bytes};
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// Shared between the codec's side of the connection and its supervisor. hyper wants it `Send`; it never
/// leaves the thread, so plain loads and stores suffice.
#[derive(Default)]
pub(super) struct IoState {
    read: AtomicU64,
    written: AtomicU64,
    /// Bytes of a request head came in and no request has started yet.
    pub(super) head_pending: AtomicBool,
    /// Status of the error reply that the codec gave by itself; 0 when it gave none.
    pub(super) own_error: AtomicU16,
    /// The last bytes read ended a request, so that no part of a next one is in the codec's buffer.
    clean: AtomicBool,
    /// The last write had to wait, so that something may still be in the codec's buffer.
    blocked: AtomicBool,
    /// The stream can tell when it is readable again.
    parkable: AtomicBool,
    /// The supervisor wants the stream back when the codec lets go of it.
    pub(super) give_back: AtomicBool,
    returned: Mutex<Option<Stream>>,
}

impl IoState {
    /// Bytes read and written since the last call.
    pub(super) fn take_counts(&self) -> (u64, u64) {
        (
            self.read.swap(0, Ordering::Relaxed),
            self.written.swap(0, Ordering::Relaxed),
        )
    }

    /// The stream, after the codec has let go of it with `give_back` set.
    pub(super) fn take_stream(&self) -> Option<Stream> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the codec holds no byte in either direction, given that no stream is open.
    ///
    /// A part of a head cannot end with an empty line. A body can end with anything; its connection is then
    /// taken for busy, which does no harm.
    pub(super) fn at_rest(&self) -> bool {
        let [clean, blocked, parkable] =
            [&self.clean, &self.blocked, &self.parkable].map(|f| f.load(Ordering::Relaxed));
        clean && !blocked && parkable
    }

    fn add(counter: &AtomicU64, n: usize) {
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(n as u64),
            Ordering::Relaxed,
        );
    }
}

/// The empty line that ends a request's head.
const END: &[u8] = b"\r\n\r\n";

/// The stream that hyper reads and writes.
pub(super) struct CodecIo {
    stream: Stream,
    prefix: Bytes,
    instead: Bytes,
    server: Option<HeaderValue>,
    state: Arc<IoState>,
}

impl CodecIo {
    /// `server` is the `server` header of replies that stand in for the codec's own.
    pub(super) fn new(stream: Stream, prefix: Bytes, server: Option<HeaderValue>, state: Arc<IoState>) -> Self {
        state.parkable.store(stream.can_wait(), Ordering::Relaxed);
        Self {
            stream,
            prefix,
            instead: Bytes::new(),
            server,
            state,
        }
    }

    /// Writes what stands in for hyper's reply; ready when it is all out.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let n = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))?;
            IoState::add(&self.state.written, n);
            self.instead.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.state.blocked.store(written.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(n)) = written {
            IoState::add(&self.state.written, n);
        }
        written
    }

    /// The reply to send instead of `written`, when that is one hyper made by itself.
    fn own_reply(&self, written: &[u8]) -> Option<Bytes> {
        let status = automatic_status(written)?;
        self.state.own_error.store(status.as_u16(), Ordering::Relaxed);
        Some(error_reply(status, self.server.as_ref()))
    }
}

impl Drop for CodecIo {
    fn drop(&mut self) {
        if self.state.give_back.load(Ordering::Relaxed) {
            let gone = Stream::Other(Box::pin(tokio::io::join(tokio::io::empty(), tokio::io::sink())));
            let stream = std::mem::replace(&mut self.stream, gone);
            *self.state.returned.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        }
    }
}

/// What Envoy answers to a request that never became one: the reason phrase, then the connection closes.
pub(super) fn error_reply(status: StatusCode, server: Option<&HeaderValue>) -> Bytes {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut reply = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\ndate: {}\r\n",
        status.as_str(),
        reason.len(),
        httpdate::fmt_http_date(SystemTime::now()),
    );
    if let Some(server) = server.and_then(|s| s.to_str().ok()) {
        reply.push_str("server: ");
        reply.push_str(server);
        reply.push_str("\r\n");
    }
    reply.push_str("connection: close\r\n\r\n");
    reply.push_str(reason);
    reply.into()
}

/// hyper's own error replies have a 4xx status and these three headers alone; replies of ours always have more.
fn automatic_status(written: &[u8]) -> Option<StatusCode> {
    let rest = written
        .strip_prefix(b"HTTP/1.1 4")
        .or_else(|| written.strip_prefix(b"HTTP/1.0 4"))?;
    let text = std::str::from_utf8(rest).ok()?;
    let (status_line, headers) = text.split_once("\r\n")?;
    let own = headers
        .split("\r\n")
        .all(|l| l.is_empty() || l == "connection: close" || l == "content-length: 0" || l.starts_with("date: "));
    if !own || !headers.contains("connection: close") {
        return None;
    }
    let digits: u16 = status_line.get(..2)?.parse().ok()?;
    StatusCode::from_u16(400 + digits).ok()
}

impl AsyncRead for CodecIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buf.remaining());
            let part = this.prefix.split_to(n);
            this.state.clean.store(part.ends_with(END), Ordering::Relaxed);
            buf.put_slice(&part);
            this.state.head_pending.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let n = buf.filled().len() - before;
        if n > 0 {
            IoState::add(&this.state.read, n);
            this.state.clean.store(buf.filled().ends_with(END), Ordering::Relaxed);
            this.state.head_pending.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CodecIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_instead(cx))?;
        if let Some(reply) = this.own_reply(buf) {
            this.instead = reply;
            // Swallowed: the codec believes it has been written, and flushes next.
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_instead(cx))?;
        if let [only] = bufs
            && let Some(reply) = this.own_reply(only)
        {
            this.instead = reply;
            return Poll::Ready(Ok(only.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_instead(cx))?;
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.state.blocked.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_instead(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
