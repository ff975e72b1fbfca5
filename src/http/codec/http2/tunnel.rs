//! The bytes of a stream after CONNECT, plain or extended.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::super::{TunnelEnd, TunnelState};
use crate::net::Stream;

/// So much of one write is copied at most.
const PART: usize = 16 * 1024;

/// What became of a client's stream when nobody wants its bytes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Both sides have said that they are done, or the client has gone.
    Done,
    /// The client was told the end and may go on sending.
    Told,
    /// The client was told nothing.
    Untold,
}

/// Both directions of a client's stream as one byte stream. What became of it is told to `left`.
pub fn tunnel(recv: RecvStream, send: SendStream<Bytes>, left: oneshot::Sender<Left>, cut: Arc<AtomicBool>) -> Stream {
    Stream::Other(Box::pin(Tunnel {
        recv,
        send,
        read: Bytes::new(),
        read_all: false,
        shut: false,
        other: Other::Client(Some(left), cut),
    }))
}

/// Both directions of an upstream's stream as one byte stream. `open` is dropped with it, after `end` has been told.
pub fn tunnel_to_upstream(
    recv: RecvStream,
    send: SendStream<Bytes>,
    end: Arc<TunnelEnd>,
    open: oneshot::Sender<()>,
) -> Stream {
    Stream::Other(Box::pin(Tunnel {
        recv,
        send,
        read: Bytes::new(),
        read_all: false,
        shut: false,
        other: Other::Upstream(end, open),
    }))
}

struct Tunnel {
    recv: RecvStream,
    send: SendStream<Bytes>,
    read: Bytes,
    /// The last byte was read, and what follows it.
    read_all: bool,
    /// The last byte was written.
    shut: bool,
    other: Other,
}

/// Who is told of the end.
enum Other {
    /// Of a client's stream; the flag is set if the client has not ended.
    Client(Option<oneshot::Sender<Left>>, Arc<AtomicBool>),
    /// Of a stream to an upstream.
    Upstream(
        Arc<TunnelEnd>,
        #[expect(dead_code, reason = "its drop tells")] oneshot::Sender<()>,
    ),
}

impl Tunnel {
    fn gone(&mut self, error: h2::Error) -> io::Error {
        if let Other::Client(left, cut) = &mut self.other {
            cut.store(true, Ordering::Release);
            if let Some(left) = left.take() {
                // Nobody has to listen.
                let _ = left.send(Left::Done);
            }
        } else if let Other::Upstream(end, _) = &self.other {
            let reset = error.is_reset() && error.is_remote();
            end.set(match error.reason() {
                Some(Reason::CONNECT_ERROR) if reset => TunnelState::RemoteClosed,
                _ if reset => TunnelState::RemoteReset,
                _ => TunnelState::Broken,
            });
        }
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() {
            if this.read_all {
                return Poll::Ready(Ok(()));
            }
            match ready!(this.recv.poll_data(cx)) {
                Some(Ok(data)) => this.read = data,
                Some(Err(error)) => return Poll::Ready(Err(this.gone(error))),
                None => {
                    if let Other::Upstream(end, _) = &this.other
                        && let Ok(Some(trailers)) = ready!(this.recv.poll_trailers(cx))
                    {
                        end.set_trailers(trailers);
                    }
                    this.read_all = true;
                }
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
                Some(Err(error)) => return Poll::Ready(Err(this.gone(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        };
        let n = room.min(buf.len()).min(PART);
        let part = Bytes::copy_from_slice(buf.get(..n).unwrap_or_default());
        match this.send.send_data(part, false) {
            Ok(()) => Poll::Ready(Ok(n)),
            Err(error) => Poll::Ready(Err(this.gone(error))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.shut, true)
            && let Err(error) = this.send.send_data(Bytes::new(), true)
        {
            return Poll::Ready(Err(this.gone(error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        match &mut self.other {
            Other::Client(left, cut) => {
                let how = match (self.shut, self.read_all) {
                    (true, true) => Left::Done,
                    (true, false) => Left::Told,
                    (false, _) => Left::Untold,
                };
                if let Some(left) = left.take() {
                    if how == Left::Untold {
                        // So that there is something to be written, after which the reset takes nothing back.
                        let _ = self.send.send_data(Bytes::new(), false);
                    }
                    cut.store(how != Left::Done, Ordering::Release);
                    // The stream is over without anybody who listens.
                    let _ = left.send(how);
                }
            }
            Other::Upstream(end, _) if !(self.shut && self.read_all) && end.state() == TunnelState::Sound => {
                end.set(TunnelState::LocalReset);
                self.send.send_reset(Reason::INTERNAL_ERROR);
            }
            Other::Upstream(..) => {}
        }
    }
}
