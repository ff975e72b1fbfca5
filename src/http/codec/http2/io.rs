//! The bytes of a connection under the library: what was read while finding out the protocol comes first, and an
//! observer sees all that pass.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::observe::{NextWrite, Observer};
use crate::net::Stream;

/// Bytes read and written.
#[derive(Default)]
pub(super) struct Counts {
    read: Cell<u64>,
    written: Cell<u64>,
    /// The client has closed its side.
    pub(super) closed: Cell<bool>,
}

impl Counts {
    /// Bytes that were written past the library.
    pub(super) fn wrote(&self, n: usize) {
        self.written.set(self.written.get() + n as u64);
    }

    /// Bytes read and written since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        (self.read.take(), self.written.take())
    }
}

/// The socket of a downstream connection: it outlives the library's hold on it.
pub(super) struct Socket {
    stream: Rc<RefCell<Stream>>,
    /// Read before it was known that this is HTTP/2.
    prefix: Bytes,
    counts: Rc<Counts>,
}

impl Socket {
    pub(super) fn new(stream: Rc<RefCell<Stream>>, prefix: Bytes) -> Self {
        let counts = Rc::new(Counts::default());
        counts.read.set(prefix.len() as u64);
        Self { stream, prefix, counts }
    }

    /// The bytes so far.
    pub(super) fn counts(&self) -> Rc<Counts> {
        self.counts.clone()
    }

    fn wrote(&self, n: usize) -> usize {
        self.counts.written.set(self.counts.written.get() + n as u64);
        n
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut *this.stream.borrow_mut()).poll_read(cx, buf))?;
        let n = buf.filled().len() - before;
        this.counts.read.set(this.counts.read.get() + n as u64);
        this.counts.closed.set(n == 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut *this.stream.borrow_mut()).poll_write(cx, buf))?;
        Poll::Ready(Ok(this.wrote(n)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut *this.stream.borrow_mut()).poll_write_vectored(cx, bufs))?;
        Poll::Ready(Ok(this.wrote(n)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream.borrow_mut()).poll_shutdown(cx)
    }
}

/// What the library reads and writes, under the eyes of an observer.
pub struct Observed<S> {
    inner: S,
    seen: Rc<Observer>,
}

impl<S> Observed<S> {
    /// `seen` sees all that passes.
    pub fn new(inner: S, seen: Rc<Observer>) -> Self {
        Self { inner, seen }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        this.seen.read(buf.filled().get(before..).unwrap_or_default())?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let some = match this.seen.next_write(buf) {
            NextWrite::Some(n) => buf.get(..n).unwrap_or_default(),
            NextWrite::Skip(n) => return Poll::Ready(Ok(n)),
        };
        let n = ready!(Pin::new(&mut this.inner).poll_write(cx, some))?;
        this.seen.written(some.get(..n).unwrap_or_default());
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.seen.is_leaving_out() {
            let first = bufs.iter().find(|b| !b.is_empty());
            return Pin::new(this).poll_write(cx, first.map_or(&[], |b| b));
        }
        let n = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        let mut left = n;
        for buf in bufs {
            let now = left.min(buf.len());
            this.seen.written(buf.get(..now).unwrap_or_default());
            left -= now;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
