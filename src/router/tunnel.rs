//! An upgraded request: bytes both ways until either side ends.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use crate::{
    http::{StreamInfo, codec::Upgrade},
    net::{self, Stream},
};

/// Both ends of an upgrade that was accepted.
pub struct Tunnel {
    pub(super) downstream: Upgrade,
    pub(super) upstream: LocalBoxFuture<'static, Option<Stream>>,
}

impl Tunnel {
    /// Waits for both ends to be handed over, then copies until both directions are done, or nothing moved
    /// for `idle`.
    pub async fn copy(self, info: &StreamInfo, idle: Option<Duration>) {
        let Some(downstream) = self.downstream.take().await else {
            return;
        };
        let Some(upstream) = self.upstream.await else { return };
        let (received, sent) = net::copy_both_ways(downstream, upstream, idle).await;
        let progress = &info.progress;
        progress.bytes_received.set(progress.bytes_received.get() + received);
        progress.bytes_sent.set(progress.bytes_sent.get() + sent);
    }
}
