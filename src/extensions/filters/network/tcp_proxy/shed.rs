//! Load-shed points: a tunnel that gets no connection, and one that ends at bytes of its client.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::Session;
use crate::{
    http::Flag,
    listener::ListenerConfig,
    net::Stream,
    server::{OverloadManager, Worker, overload::Point},
};

/// The overload manager, as tunnels ask it.
pub(super) struct Shed {
    overload: Option<Arc<OverloadManager>>,
    /// Bytes that were received, and for which the tunnel ended; streams may change threads, so it is shared.
    dropped: Option<Arc<AtomicU64>>,
}

impl Shed {
    /// For a connection to this listener, which may bypass the overload manager.
    pub(super) fn of(listener: &ListenerConfig, worker: &Worker) -> Self {
        let overload = worker.server.overload();
        Self {
            overload: overload.filter(|_| !listener.bypass_overload).cloned(),
            dropped: None,
        }
    }

    /// Whether the tunnel gets no connection.
    pub(super) fn refuses(&self, session: &mut Session) -> bool {
        let refused = self
            .overload
            .as_ref()
            .is_some_and(|o| o.sheds(Point::TcpProxyUpstreamConnect));
        if refused {
            note(session);
        }
        refused
    }

    /// The client's stream, which breaks at bytes that come while load is shed.
    pub(super) fn watched(&mut self, stream: Stream) -> Stream {
        match self.overload.take().filter(|o| o.has(Point::TcpProxyOnData)) {
            None => stream,
            Some(overload) => {
                let dropped = Arc::default();
                self.dropped = Some(Arc::clone(&dropped));
                Stream::Other(Box::pin(Watched {
                    stream,
                    overload,
                    dropped,
                }))
            }
        }
    }

    /// The tunnel has ended, perhaps for this.
    pub(super) fn ended(&self, session: &mut Session) {
        let dropped = self.dropped.as_ref().map_or(0, |d| d.load(Ordering::Relaxed));
        if dropped > 0 {
            let forward = &session.progress.forward;
            forward.set(forward.get() + dropped);
            note(session);
        }
    }
}

fn note(session: &mut Session) {
    session.stats().downstream_cx_overload_close.inc();
    session.info.flags.set(Flag::OverloadManager);
}

struct Watched {
    stream: Stream,
    overload: Arc<OverloadManager>,
    dropped: Arc<AtomicU64>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let came = buf.filled().len() - before;
        if came > 0 && self.overload.sheds(Point::TcpProxyOnData) {
            self.dropped.fetch_add(came as u64, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
