//! `check_drain_close`: a connection ends, when bytes have moved, once its listener drains.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    net::Stream,
    server::{Drain, ServerContext},
};

/// The part of the drain time over which the probability rises.
const RAMP: f64 = 1.0;

/// How the stream breaks then.
pub(super) const CLOSED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// The client's stream, which breaks after the bytes that move while the listener drains.
pub(super) fn checked(stream: Stream, drain: Drain, server: Arc<ServerContext>) -> Stream {
    Stream::Other(Box::pin(Checked {
        stream,
        drain,
        server,
        closes: false,
    }))
}

struct Checked {
    stream: Stream,
    drain: Drain,
    server: Arc<ServerContext>,
    closes: bool,
}

impl Checked {
    fn moved(&mut self, cx: &Context<'_>) {
        self.closes |= self.drain.should_close(&self.server, RAMP);
        if self.closes {
            // The next read tells.
            cx.waker().wake_by_ref();
        }
    }
}

impl AsyncRead for Checked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.closes {
            return Poll::Ready(Err(CLOSED.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.moved(cx);
        }
        read
    }
}

impl AsyncWrite for Checked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.moved(cx);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
