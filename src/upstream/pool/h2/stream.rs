//! A request's hold on its stream: what it has sent, how far it is, and what its end means for the connection.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use h2::SendStream;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    super::{
        UpstreamBody, UpstreamResponse,
        lease::{Hold, NotSent},
    },
    ResponseBody, head_of,
};
use crate::{
    http::{
        codec::{TunnelEnd, TunnelState, http2},
        inline_headers,
    },
    net::Stream,
    upstream::UpstreamFailure,
};

/// The sending half of a stream, and what is left of a request's body when its response has begun.
pub(super) struct Outgoing {
    pub(super) stream: Rc<RefCell<SendStream<Bytes>>>,
    /// The request is out to its end.
    pub(super) sent: Rc<Cell<bool>>,
    pub(super) rest: Option<JoinHandle<()>>,
}

impl Outgoing {
    pub(super) fn new(stream: SendStream<Bytes>, sent: bool) -> Self {
        Self {
            stream: Rc::new(RefCell::new(stream)),
            sent: Rc::new(Cell::new(sent)),
            rest: None,
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            rest.abort();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing was sent.
    Unsent,
    /// Neither side is known to be done.
    InFlight,
    /// The response is complete.
    Complete,
    /// The stream failed.
    Failed,
}

/// A request's hold on a stream.
pub(super) struct StreamGuard {
    /// None once it was given back.
    pub(super) hold: Option<Hold>,
    pub(super) phase: Phase,
    /// None before anything was sent.
    pub(super) outgoing: Option<Outgoing>,
}

impl StreamGuard {
    pub(super) fn response(mut self, response: Response<h2::RecvStream>) -> Result<UpstreamResponse, NotSent> {
        let Some(hold) = &self.hold else {
            return Err(UpstreamFailure::ConnectionTermination.into());
        };
        let http = &hold.pool.cluster.http;
        let conn = hold.conn.info.clone();
        let (parts, incoming) = response.into_parts();
        let head = head_of(parts);
        let large = http2::size(&head.headers) > http.max_response_headers_kb as usize * 1024;
        let most = http.max_headers_count as usize;
        // Those that will be joined are one; they are looked for only where it matters.
        let many = head.headers.len() > most && inline_headers::count_in_response(&head.headers) > most;
        if large || many {
            // Envoy's codec resets the stream, and tells it as the upstream's reset.
            if let Some(outgoing) = &self.outgoing {
                outgoing.stream.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR);
            }
            return Err(self.fail(UpstreamFailure::RemoteReset).into());
        }
        let body = match incoming.is_end_stream() {
            true => {
                self.phase = Phase::Complete;
                UpstreamBody::empty()
            }
            false => ResponseBody::new(incoming, self).into(),
        };
        Ok(UpstreamResponse {
            head_bytes: None,
            head,
            body,
            conn,
            upgrade: None,
            tunnel: None,
        })
    }

    /// The answer to CONNECT, plain or extended. With `only`, all else than a tunnel is a failure.
    pub(super) fn tunnel(
        mut self,
        response: Response<h2::RecvStream>,
        mut send: SendStream<Bytes>,
        upgrade: Option<HeaderValue>,
        only: bool,
    ) -> Result<UpstreamResponse, NotSent> {
        if only && (response.status() != StatusCode::OK || response.body().is_end_stream()) {
            return self.refused(response, &mut send);
        }
        if !response.status().is_success() {
            // Nothing follows of the request.
            let _ = send.send_data(Bytes::new(), true);
            return self.response(response);
        }
        let Some(hold) = &self.hold else {
            return Err(UpstreamFailure::ConnectionTermination.into());
        };
        let conn = hold.conn.info.clone();
        let (parts, incoming) = response.into_parts();
        let mut head = head_of(parts);
        if let Some(protocol) = upgrade {
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            head.headers.insert(header::UPGRADE, protocol);
            head.headers
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        self.phase = Phase::Complete;
        let end = Arc::<TunnelEnd>::default();
        let (open, closed) = oneshot::channel();
        let stream = http2::tunnel_to_upstream(incoming, send, end.clone(), open);
        let upgrade: LocalBoxFuture<'static, Option<Stream>> = async move { Some(stream) }.boxed_local();
        let told = end.clone();
        // The request is in flight as long as there are bytes of it.
        tokio::task::spawn_local(async move {
            // An error is the end, too.
            let _ = closed.await;
            self.tunnel_ended(&told);
        });
        Ok(UpstreamResponse {
            head_bytes: None,
            head,
            body: UpstreamBody::empty(),
            conn,
            upgrade: Some(upgrade),
            tunnel: Some(end),
        })
    }

    /// Gives up a stream that is no tunnel.
    fn refused(
        mut self,
        response: Response<h2::RecvStream>,
        send: &mut SendStream<Bytes>,
    ) -> Result<UpstreamResponse, NotSent> {
        let Some(hold) = &self.hold else {
            return Err(UpstreamFailure::ConnectionTermination.into());
        };
        send.send_reset(h2::Reason::INTERNAL_ERROR);
        hold.pool.cluster.stats.local().upstream_rq_tx_reset.inc();
        let conn = hold.conn.info.clone();
        self.phase = Phase::Failed;
        Ok(UpstreamResponse {
            head_bytes: None,
            head: head_of(response.into_parts().0),
            body: UpstreamBody::empty(),
            conn,
            upgrade: None,
            tunnel: None,
        })
    }

    fn tunnel_ended(self, end: &TunnelEnd) {
        let Some(hold) = &self.hold else { return };
        let stats = hold.pool.cluster.stats.local();
        match end.state() {
            TunnelState::LocalReset => stats.upstream_rq_tx_reset.inc(),
            TunnelState::RemoteReset => stats.upstream_rq_rx_reset.inc(),
            TunnelState::Sound | TunnelState::RemoteClosed | TunnelState::Broken => {}
        }
    }

    pub(super) fn fail_with(&mut self, error: &h2::Error) -> NotSent {
        let failure = UpstreamFailure::of_http2(error);
        // What is behind a tunnel failed: as in Envoy, no reset that counts.
        if matches!(failure, UpstreamFailure::RemoteReset) && error.reason() == Some(h2::Reason::CONNECT_ERROR) {
            self.phase = Phase::Failed;
            return failure.into();
        }
        self.fail(failure).into()
    }

    pub(super) fn fail(&mut self, failure: UpstreamFailure) -> UpstreamFailure {
        self.phase = Phase::Failed;
        let Some(hold) = &self.hold else { return failure };
        let stats = hold.pool.cluster.stats.local();
        match &failure {
            UpstreamFailure::RemoteReset => stats.upstream_rq_rx_reset.inc(),
            UpstreamFailure::ProtocolError(_) => {
                stats.upstream_rq_tx_reset.inc();
                stats.upstream_cx_protocol_error.inc();
            }
            UpstreamFailure::RequestBody(_) => stats.upstream_rq_tx_reset.inc(),
            UpstreamFailure::RemoteRefusedStream
            | UpstreamFailure::ConnectionTermination
            | UpstreamFailure::Connect(_) => {}
        }
        failure
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        let (pool, conn) = (hold.pool.clone(), hold.conn.clone());
        drop(hold);
        // Nobody waits for the rest of a request that has its answer.
        let cut = self.outgoing.as_ref().is_some_and(|outgoing| !outgoing.sent.get());
        if self.phase == Phase::InFlight || self.phase == Phase::Complete && cut {
            pool.cluster.stats.local().upstream_rq_tx_reset.inc();
            if let Some(outgoing) = &self.outgoing {
                outgoing.stream.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR);
            }
        }
        pool.stream_ended(&conn);
    }
}
