//! Taking over a connection's bytes after an upgrade.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::net::Stream;

/// A promise of raw bytes.
pub enum Upgrade {
    /// Those of a connection, once the 101 or the 2xx to CONNECT has been written.
    Http1(oneshot::Receiver<Stream>),
    /// Those of a stream of extended CONNECT.
    Http2(OnUpgrade),
}

impl Upgrade {
    /// Waits until the response has been written, then hands the bytes over; none when the connection broke.
    pub async fn take(self) -> Option<Stream> {
        match self {
            Self::Http1(stream) => stream.await.ok(),
            Self::Http2(stream) => Some(Stream::Other(Box::pin(TokioIo::new(stream.await.ok()?)))),
        }
    }
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upgrade")
    }
}
