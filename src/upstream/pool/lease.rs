//! One request over one connection, whatever the connection speaks.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;

use super::{
    UpstreamBody, UpstreamConnInfo,
    conn::{Conn, Sender},
    core::Pool,
    h1, h2,
};
use crate::{
    http::{Body, RequestHead, ResponseHead, codec::TunnelEnd},
    net::Stream,
    upstream::UpstreamFailure,
};

/// The right to send one request over a connection. Dropped unused, the connection goes back to its pool.
pub struct Lease {
    conn: Rc<Conn>,
    /// None once it was sent over.
    unused: Option<(Hold, Sender)>,
}

/// A response as it begins.
pub struct UpstreamResponse {
    /// Its head.
    pub head: ResponseHead,
    /// Its body; frees the connection when it ends or is dropped.
    pub body: UpstreamBody,
    /// How many bytes of head came, as far as the codec tells.
    pub head_bytes: Option<u64>,
    /// The connection that was used in the end.
    pub conn: Arc<UpstreamConnInfo>,
    /// For 101 and for 2xx to CONNECT: the byte stream that follows; none if the connection broke.
    pub upgrade: Option<LocalBoxFuture<'static, Option<Stream>>>,
    /// How that byte stream ends, where there is one.
    pub tunnel: Option<Arc<TunnelEnd>>,
}

/// Where informational responses (1xx) go that come before the response; they are not kept for whoever is too late.
pub type Informed<'a> = &'a mut dyn FnMut(ResponseHead);

/// Why a request has no response.
pub(super) enum NotSent {
    /// Nothing of it was sent: it may go over another connection.
    Unsent(Box<(RequestHead, Body)>),
    /// It may have been seen.
    Failed(UpstreamFailure),
}

impl From<UpstreamFailure> for NotSent {
    fn from(failure: UpstreamFailure) -> Self {
        Self::Failed(failure)
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?})", self.conn())
    }
}

impl Lease {
    pub(super) fn new(pool: Rc<Pool>, sender: Sender, conn: Rc<Conn>) -> Self {
        Self {
            conn: conn.clone(),
            unused: Some((Hold { pool, conn }, sender)),
        }
    }

    /// The connection.
    pub fn conn(&self) -> &Arc<UpstreamConnInfo> {
        &self.conn.info
    }

    /// Sends a request and waits for the head of its response. Dropping the future resets the stream.
    ///
    /// A pooled connection that turns out to be closed before anything of the request was sent is replaced by
    /// another without the caller's noticing; the response tells which one it was.
    pub async fn send(
        self,
        head: RequestHead,
        body: Body,
        informed: Informed<'_>,
    ) -> Result<UpstreamResponse, UpstreamFailure> {
        self.send_as(head, body, informed, false).await
    }

    /// [`Self::send`], of a request that is to open a tunnel if `only_tunnel`.
    pub(super) async fn send_as(
        mut self,
        mut head: RequestHead,
        mut body: Body,
        informed: Informed<'_>,
        only_tunnel: bool,
    ) -> Result<UpstreamResponse, UpstreamFailure> {
        loop {
            let Some((hold, sender)) = self.unused.take() else {
                return Err(UpstreamFailure::ConnectionTermination);
            };
            let pool = hold.pool.clone();
            let sent = match sender {
                Sender::H1(sender) => h1::send(hold, sender, head, body, informed, only_tunnel).await,
                Sender::H2(sender) => h2::send(hold, sender, head, body, informed, only_tunnel).await,
            };
            match sent {
                Ok(response) => return Ok(response),
                Err(NotSent::Failed(failure)) => return Err(failure),
                // A connection that closes before its first request is no stale one.
                Err(NotSent::Unsent(_)) if !self.conn.reused() => return Err(UpstreamFailure::ConnectionTermination),
                Err(NotSent::Unsent(unsent)) => {
                    (head, body) = *unsent;
                    self = pool.acquire().await?;
                }
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.unused.take() {
            Some((hold, Sender::H1(sender))) => h1::unused(hold, sender),
            Some((hold, Sender::H2(_))) => h2::unused(hold),
            None => {}
        }
    }
}

/// A request's place among those in flight: given back when it is dropped. What becomes of the connection is up to
/// its protocol.
pub(super) struct Hold {
    pub(super) pool: Rc<Pool>,
    pub(super) conn: Rc<Conn>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.detach(&self.conn);
    }
}
