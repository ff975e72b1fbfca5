//! The bytes of a stream after CONNECT, plain or extended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// So much of one write is copied at most.
const PART: usize = 16 * 1024;

/// Both directions of a stream as one byte stream.
pub fn tunnel(recv: RecvStream, send: SendStream<Bytes>) -> Stream {
    Stream::Other(Box::pin(Tunnel {
        recv,
        send,
        read: Bytes::new(),
        shut: false,
    }))
}

struct Tunnel {
    recv: RecvStream,
    send: SendStream<Bytes>,
    read: Bytes,
    /// The last byte was written.
    shut: bool,
}

fn gone(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                Some(Ok(data)) => this.read = data,
                Some(Err(error)) => return Poll::Ready(Err(gone(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = this.read.len().min(buf.remaining());
        buf.put_slice(this.read.get(..n).unwrap_or_default());
        this.read.advance(n);
        // Fails only for a stream that is over.
        let _ = this.recv.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(buf.len().min(PART));
        let room = loop {
            let room = this.send.capacity();
            if room > 0 {
                break room;
            }
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(gone(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        };
        let n = room.min(buf.len()).min(PART);
        let part = Bytes::copy_from_slice(buf.get(..n).unwrap_or_default());
        this.send.send_data(part, false).map_err(gone)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.shut, true) {
            this.send.send_data(Bytes::new(), true).map_err(gone)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if !self.shut {
            self.send.send_reset(Reason::NO_ERROR);
        }
    }
}
