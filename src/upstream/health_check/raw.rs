//! Connections of checks that speak a protocol of their own, kept from one check to the next.

use futures_util::FutureExt;
use tokio::io::AsyncReadExt;

use super::client::Target;
use crate::{net::Stream, upstream::ConnectFailure};

/// A connection that was kept, if it was.
#[derive(Default)]
pub struct RawConnection(Option<Stream>);

impl RawConnection {
    /// The connection of the last time, if it is still there, or a new one.
    pub async fn take_or_connect(&mut self, target: &Target) -> Result<Stream, ConnectFailure> {
        if let Some(mut stream) = self.0.take() {
            // Nothing was asked, so whatever can be read, its end included, is nothing to go on with.
            let mut byte = [0];
            if stream.read(&mut byte).now_or_never().is_none() {
                return Ok(stream);
            }
        }
        target.connect(&[]).await
    }

    /// Keeps the connection for the next check.
    pub fn keep(&mut self, stream: Stream) {
        self.0 = Some(stream);
    }
}
