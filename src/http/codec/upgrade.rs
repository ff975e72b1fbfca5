//! Taking over bytes after an upgrade.

use std::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
};

use http::HeaderMap;
use tokio::sync::oneshot;

use crate::net::Stream;

/// How far the byte stream of a tunnel to an upstream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelState {
    /// It runs, or both sides have ended in good order.
    Sound,
    /// This side has given it up.
    LocalReset,
    /// The upstream has reset it.
    RemoteReset,
    /// The upstream has reset it because what is behind it has closed (`CONNECT_ERROR`): as its end.
    RemoteClosed,
    /// Its connection broke.
    Broken,
}

/// What whoever opened a tunnel learns of its end; written by the byte stream, which goes its own ways.
#[derive(Debug, Default)]
pub struct TunnelEnd {
    state: AtomicU8,
    trailers: OnceLock<HeaderMap>,
}

impl TunnelEnd {
    /// How far it is.
    pub fn state(&self) -> TunnelState {
        match self.state.load(Ordering::Acquire) {
            1 => TunnelState::LocalReset,
            2 => TunnelState::RemoteReset,
            3 => TunnelState::RemoteClosed,
            4 => TunnelState::Broken,
            _ => TunnelState::Sound,
        }
    }

    /// Notes an end that is not in good order; the first one counts.
    pub fn set(&self, state: TunnelState) {
        let number = match state {
            TunnelState::Sound => return,
            TunnelState::LocalReset => 1,
            TunnelState::RemoteReset => 2,
            TunnelState::RemoteClosed => 3,
            TunnelState::Broken => 4,
        };
        let _ = self
            .state
            .compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Trailers after the upstream's last byte.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.get()
    }

    /// Keeps the trailers.
    pub fn set_trailers(&self, trailers: HeaderMap) {
        // There is one end.
        let _ = self.trailers.set(trailers);
    }
}

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
