//! A connection within this process: what internal listeners accept in place of a socket.

use std::{
    io,
    pin::Pin,
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
}

/// Both ends of a new connection; either direction holds up to `buffer` bytes.
pub fn internal_pair(buffer: usize) -> (InternalStream, InternalStream) {
    let (a, b) = duplex(buffer);
    let end = |pipe| InternalStream {
        pipe,
        seen: BytesMut::new(),
    };
    (end(a), end(b))
}

impl InternalStream {
    /// Waits until more than `seen` bytes have come, and gives all of them as far as `limit`. They stay to be read.
    /// No more than `seen` bytes: no more will come, or the limit is reached.
    pub async fn peek(&mut self, seen: usize, limit: usize) -> io::Result<Vec<u8>> {
        while self.seen.len() <= seen && self.seen.len() < limit {
            if self.pipe.read_buf(&mut self.seen).await? == 0 {
                break;
            }
        }
        Ok(self.seen.get(..limit.min(self.seen.len())).unwrap_or_default().to_vec())
    }

    /// Whether the other end is gone already, without a byte.
    pub fn is_refused(&mut self) -> bool {
        let seen = self.peek(0, 1).now_or_never();
        seen.is_some_and(|seen| seen.is_ok_and(|bytes| bytes.is_empty()))
    }

    /// Takes bytes that were seen.
    pub fn take(&mut self, length: usize) {
        self.seen.advance(length.min(self.seen.len()));
    }
}

impl AsyncRead for InternalStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.pipe).poll_read(cx, buf);
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
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
