//! Holding a client's bytes back until somebody has decided on them.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// Most bytes that are read before the decision.
const BYTES: usize = 4096;

/// Nothing was read yet; what is read will wait.
const WAITING: u8 = 0;
/// Bytes were read and wait.
const HELD: u8 = 1;
/// They may go on.
const PASSED: u8 = 2;
/// They, and all that follow, may go on.
const OPEN: u8 = 3;

/// The stream with its reads held back, and the hand that lets them go. `count` has the bytes that wait.
pub fn hold(stream: Stream, count: &Arc<AtomicU64>) -> (Stream, Hold) {
    let shared = Arc::new(Shared::default());
    let held = HeldStream {
        inner: stream,
        shared: shared.clone(),
        bytes: Vec::new(),
        count: count.clone(),
        ended: false,
    };
    (Stream::Other(Box::pin(held)), Hold(shared))
}

/// Knows when bytes came, and lets them go.
pub struct Hold(Arc<Shared>);

// A stream may have to be Send for its codec, so atomics stand where one thread would need none.
#[derive(Default)]
struct Shared {
    state: AtomicU8,
    reader: AtomicWaker,
    holder: AtomicWaker,
}

impl Hold {
    /// Waits until the client has sent bytes, or has ended.
    pub async fn bytes(&self) {
        poll_fn(|cx| {
            self.0.holder.register(cx.waker());
            match self.0.state.load(Ordering::Acquire) {
                HELD => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    /// Lets go of the bytes that came; later ones wait again.
    pub fn pass(&self) {
        self.set(PASSED);
    }

    /// Lets go of everything.
    pub fn open(&self) {
        self.set(OPEN);
    }

    fn set(&self, state: u8) {
        self.0.state.store(state, Ordering::Release);
        self.0.reader.wake();
    }
}

struct HeldStream {
    inner: Stream,
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    count: Arc<AtomicU64>,
    /// The client has ended; that is decided on as bytes are.
    ended: bool,
}

impl AsyncRead for HeldStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let state = this.shared.state.load(Ordering::Acquire);
            if state >= PASSED && !this.bytes.is_empty() {
                let n = this.bytes.len().min(buf.remaining());
                buf.put_slice(this.bytes.get(..n).unwrap_or_default());
                this.bytes.drain(..n);
                this.count.fetch_sub(n as u64, Ordering::Relaxed);
                return Poll::Ready(Ok(()));
            }
            match state {
                OPEN | PASSED if this.ended => return Poll::Ready(Ok(())),
                OPEN => return Pin::new(&mut this.inner).poll_read(cx, buf),
                PASSED => this.shared.state.store(WAITING, Ordering::Release),
                HELD => {
                    this.shared.reader.register(cx.waker());
                    if this.shared.state.load(Ordering::Acquire) == HELD {
                        return Poll::Pending;
                    }
                }
                _ => {
                    let mut first = [0; BYTES];
                    let mut first = ReadBuf::new(&mut first);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut first))?;
                    this.ended = first.filled().is_empty();
                    this.bytes.extend_from_slice(first.filled());
                    this.count.fetch_add(first.filled().len() as u64, Ordering::Relaxed);
                    this.shared.state.store(HELD, Ordering::Release);
                    this.shared.holder.wake();
                }
            }
        }
    }
}

impl AsyncWrite for HeldStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
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

#[cfg(test)]
mod tests;
