//! Taking over bytes after an upgrade.

use tokio::sync::oneshot;

use crate::net::Stream;

/// A promise of raw bytes: those of an HTTP/1 connection once the 101 or the 2xx to CONNECT has been written, or those
/// of an HTTP/2 stream.
pub struct Upgrade(oneshot::Receiver<Stream>);

impl Upgrade {
    /// The promise, and where it is kept.
    pub(super) fn new() -> (oneshot::Sender<Stream>, Self) {
        let (taker, taken) = oneshot::channel();
        (taker, Self(taken))
    }

    /// Waits until the response has been written, then hands the bytes over; none when the connection broke.
    pub async fn take(self) -> Option<Stream> {
        self.0.await.ok()
    }
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upgrade")
    }
}
