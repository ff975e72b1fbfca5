//! An upgraded request: bytes both ways until either side ends.

use std::{rc::Rc, time::Duration};

use futures_util::future::LocalBoxFuture;

use crate::{
    http::{codec::Upgrade, stream_info::Progress},
    net::{self, FirstToEnd, Stream, Until},
};

/// Both ends of an upgrade that was accepted.
pub struct Tunnel {
    pub(super) downstream: Upgrade,
    pub(super) upstream: LocalBoxFuture<'static, Option<Stream>>,
    /// The upstream's bytes are no HTTP: CONNECT ended here.
    pub(super) terminated: bool,
}

impl Tunnel {
    /// Waits for both ends to be handed over, then copies until either is done, with `half_close` both, or nothing
    /// moved for `idle`.
    pub async fn copy(self, progress: Rc<Progress>, idle: Option<Duration>, half_close: bool) -> FirstToEnd {
        let Some(downstream) = self.downstream.take().await else {
            return FirstToEnd::First;
        };
        let Some(upstream) = self.upstream.await else {
            return FirstToEnd::Second;
        };
        let until = match (half_close, self.terminated) {
            (false, _) => Until::Either,
            (true, false) => Until::Both,
            // The upstream's end is the response's.
            (true, true) => Until::Second,
        };
        let (received, sent, first) = net::copy_both_ways(downstream, upstream, idle, until).await;
        progress.bytes_received.set(progress.bytes_received.get() + received);
        progress.bytes_sent.set(progress.bytes_sent.get() + sent);
        match (until, first) {
            // Done in good order, in its time.
            (Until::Both, FirstToEnd::First) => FirstToEnd::Second,
            (_, FirstToEnd::SecondFailed) if !self.terminated => FirstToEnd::Second,
            (_, first) => first,
        }
    }
}
