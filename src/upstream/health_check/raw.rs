//! Connections of checks that speak no HTTP, kept from one check to the next.

use futures_util::FutureExt;
use tokio::io::AsyncReadExt;

use super::client::Target;
use crate::{net::Stream, upstream::ConnectFailure};

/// A connection that was kept, if it was.
#[derive(Default)]
pub struct RawConnection {
    stream: Option<Stream>,
    /// Its end between two checks is a failure.
    watched: bool,
}

impl RawConnection {
    /// The connection of the last time, if it is still there, or a new one.
    pub async fn take_or_connect(&mut self, target: &Target) -> Result<Stream, ConnectFailure> {
        match self.take_alive() {
            Some(stream) => Ok(stream),
            None => target.connect(&[]).await,
        }
    }

    /// The connection of the last time, if it is still there.
    pub fn take_alive(&mut self) -> Option<Stream> {
        let mut stream = self.stream.take()?;
        // Nothing was asked, so whatever can be read, its end included, is nothing to go on with.
        let ended = stream.read(&mut [0]).now_or_never().is_some();
        (!ended).then_some(stream)
    }

    /// The connection of the last time.
    pub fn take(&mut self) -> Option<Stream> {
        self.stream.take()
    }

    /// Keeps the connection for the next check. It may end meanwhile.
    pub fn keep(&mut self, stream: Stream) {
        *self = Self {
            stream: Some(stream),
            watched: false,
        };
    }

    /// Keeps the connection for the next check; [`Self::closed`] tells of its end.
    pub fn keep_watched(&mut self, stream: Stream) {
        *self = Self {
            stream: Some(stream),
            watched: true,
        };
    }

    /// Returns when the other side closes the watched connection, which counts as a failure; never without one.
    pub async fn closed(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.watched) else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 512];
        while let Ok(1..) = stream.read(&mut buffer).await {}
        self.stream = None;
    }
}
