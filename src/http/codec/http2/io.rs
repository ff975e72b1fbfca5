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

use super::observe::Observer;
use crate::net::Stream;

/// Bytes read and written.
#[derive(Default)]
pub(super) struct Counts {
    read: Cell<u64>,
    written: Cell<u64>,
}

impl Counts {
    /// Bytes read and written since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        (self.read.take(), self.written.take())
    }
}

/// The stream that the library reads and writes. The socket outlives it.
pub(super) struct ObservedStream {
    socket: Rc<RefCell<Stream>>,
    prefix: Bytes,
    counts: Rc<Counts>,
    seen: Rc<Observer>,
}

impl ObservedStream {
    pub(super) fn new(socket: Rc<RefCell<Stream>>, prefix: Bytes, seen: Rc<Observer>) -> Self {
        let counts = Rc::new(Counts::default());
        counts.read.set(prefix.len() as u64);
        Self {
            socket,
            prefix,
            counts,
            seen,
        }
    }

    /// The bytes so far.
    pub(super) fn counts(&self) -> Rc<Counts> {
        self.counts.clone()
    }
}

impl AsyncRead for ObservedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(n));
        } else {
            ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_read(cx, buf))?;
            let n = buf.filled().len() - before;
            this.counts.read.set(this.counts.read.get() + n as u64);
        }
        this.seen.read(buf.filled().get(before..).unwrap_or_default())?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_write(cx, buf))?;
        this.counts.written.set(this.counts.written.get() + n as u64);
        this.seen.written(buf.get(..n).unwrap_or_default());
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_write_vectored(cx, bufs))?;
        this.counts.written.set(this.counts.written.get() + n as u64);
        let mut left = n;
        for buf in bufs {
            let now = left.min(buf.len());
            this.seen.written(buf.get(..now).unwrap_or_default());
            left -= now;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().socket.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().socket.borrow_mut()).poll_shutdown(cx)
    }
}
