//! Load-shed points: a tunnel that gets no connection, and one that ends at bytes of its client.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{config::Config, session::Session};
use crate::{
    http::{ConnectionInfo, Flag},
    listener::ListenerConfig,
    net::{CopyProgress, Stream},
    server::{OverloadManager, Worker, overload::Point},
};

/// The overload manager, unless the listener bypasses it.
pub(super) struct Shed(Option<Arc<OverloadManager>>);

impl Shed {
    /// For a connection to this listener.
    pub(super) fn of(listener: &ListenerConfig, worker: &Worker) -> Self {
        let overload = worker.server.overload();
        Self(overload.filter(|_| !listener.bypass_overload).cloned())
    }

    /// Whether the tunnel gets no connection.
    pub(super) fn refuses(&self, session: &Session) -> bool {
        let refused = self.0.as_ref().is_some_and(|o| o.sheds(Point::TcpProxyUpstreamConnect));
        if refused {
            note(&session.config, &session.info.connection);
        }
        refused
    }

    /// The client's stream, which breaks at bytes that come while load is shed.
    pub(super) fn watched(self, session: &Session, stream: Stream) -> Stream {
        match self.0.filter(|o| o.has(Point::TcpProxyOnData)) {
            None => stream,
            Some(overload) => Stream::Other(Box::pin(Watched {
                stream,
                overload,
                config: session.config.clone(),
                info: session.info.connection.clone(),
                progress: session.progress.clone(),
            })),
        }
    }
}

fn note(config: &Config, info: &ConnectionInfo) {
    config.stats.local().downstream_cx_overload_close.inc();
    let mut flags = info.flags.get();
    flags.set(Flag::OverloadManager);
    info.flags.set(flags);
}

struct Watched {
    stream: Stream,
    overload: Arc<OverloadManager>,
    config: Arc<Config>,
    info: Rc<ConnectionInfo>,
    progress: Rc<CopyProgress>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let came = buf.filled().len() - before;
        if came > 0 && self.overload.sheds(Point::TcpProxyOnData) {
            // They were received, and go nowhere.
            self.progress.forward.set(self.progress.forward.get() + came as u64);
            note(&self.config, &self.info);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
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
