//! Taking over a connection's bytes after an upgrade.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::net::Stream;

/// A promise of the raw bytes of a connection (HTTP/1) or stream (HTTP/2 CONNECT).
pub struct Upgrade(pub(crate) OnUpgrade);

impl Upgrade {
    /// Waits until the 101 (or 2xx to CONNECT) has been written, then hands the bytes over.
    pub async fn take(self) -> Result<Stream, hyper::Error> {
        Ok(Stream::Other(Box::pin(TokioIo::new(self.0.await?))))
    }
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upgrade")
    }
}
