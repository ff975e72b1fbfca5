//! A connection within this process: what internal listeners accept in place of a socket. As in Envoy, an end that goes
//! without having said that it is done resets the other one, unless that one is done.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// One end of a connection within this process.
#[derive(Debug)]
pub struct InternalStream {
    pipe: DuplexStream,
    /// Bytes that were looked at and not taken yet.
    seen: BytesMut,
    /// This end is done.
    shut: bool,
    /// Set by the other end if it goes without having said that it is done.
    reset: Arc<AtomicBool>,
    /// The same, of the other end.
    reset_other: Arc<AtomicBool>,
}

/// Both ends of a new connection; either direction holds up to `buffer` bytes.
pub fn internal_pair(buffer: usize) -> (InternalStream, InternalStream) {
    let (a, b) = duplex(buffer);
    let (first, second) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let end = |pipe, reset: &Arc<AtomicBool>, reset_other: &Arc<AtomicBool>| InternalStream {
        pipe,
        seen: BytesMut::new(),
        shut: false,
        reset: reset.clone(),
        reset_other: reset_other.clone(),
    };
    (end(a, &first, &second), end(b, &second, &first))
}

impl InternalStream {
    /// Waits until more than `seen` bytes have come, and gives all of them as far as `limit`. They stay to be read.
    /// No more than `seen` bytes: no more will come, or the limit is reached.
    pub async fn peek(&mut self, seen: usize, limit: usize) -> io::Result<Vec<u8>> {
        while self.seen.len() <= seen && self.seen.len() < limit {
            if self.pipe.read_buf(&mut self.seen).await? == 0 {
                self.end()?;
                break;
            }
        }
        Ok(self.seen.get(..limit.min(self.seen.len())).unwrap_or_default().to_vec())
    }

    /// Whether the other end is gone already, without a byte.
    pub fn is_refused(&mut self) -> bool {
        let seen = self.peek(0, 1).now_or_never();
        seen.is_some_and(|seen| seen.map_or(true, |bytes| bytes.is_empty()))
    }

    /// How it ended: an error when it was reset.
    fn end(&self) -> io::Result<()> {
        match self.reset.load(Ordering::Acquire) && !self.shut {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// Takes bytes that were seen.
    pub fn take(&mut self, length: usize) {
        self.seen.advance(length.min(self.seen.len()));
    }
}

impl Drop for InternalStream {
    fn drop(&mut self) {
        if !self.shut {
            self.reset_other.store(true, Ordering::Release);
        }
    }
}

impl AsyncRead for InternalStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
            return Poll::Ready(match buf.filled().len() == before && buf.remaining() > 0 {
                true => self.end(),
                false => Ok(()),
            });
        }
        let n = buf.remaining().min(self.seen.len());
        buf.put_slice(self.seen.get(..n).unwrap_or_default());
        self.seen.advance(n);
        if self.seen.is_empty() {
            // Nothing is looked at any more: the room is given back.
            self.seen = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for InternalStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(ready!(Pin::new(&mut self.pipe).poll_write(cx, bytes)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
