//! HTTP/1 connections: the codec's client as the pool has it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use http_body::{Frame, SizeHint};
use tokio::{io::AsyncWriteExt, sync::oneshot};

use super::{
    UpstreamBody, UpstreamResponse,
    conn::{self, Conn},
    io::{Counted, Upgraded},
    lease::{Hold, Informed, NotSent},
    open::OpenGuard,
};
use crate::{
    http::{
        Body, BodyError, RequestHead,
        codec::{
            H1Options, TunnelEnd, TunnelState,
            client::{Begun, Broken, Client, ClientOptions, Exchange, Finished, IdleEnd},
        },
    },
    net::{Deadline, Stream},
    upstream::{ConnectFailure, UpstreamFailure, config::HttpOptions, stats::Http1CodecStats},
};

/// What requests are sent through, one after the other.
pub(super) type Sender = Rc<Client<Counted>>;

/// Sends a request and waits for the head of its response. With `only_tunnel` it is to open a tunnel.
pub(super) async fn send(
    hold: Hold,
    client: Sender,
    head: RequestHead,
    body: Body,
    informed: Informed<'_>,
    only_tunnel: bool,
) -> Result<UpstreamResponse, NotSent> {
    if !poll_fn(|cx| Poll::Ready(client.is_alive(cx))).await {
        return Err(NotSent::Unsent(Box::new((head, body))));
    }
    let Some(exchange) = client.exchange(head, body) else {
        unused(hold, client);
        let failure = UpstreamFailure::RequestBody("not a request".into());
        return Err(failure.into());
    };
    let mut lent = Lent {
        hold: Some(hold),
        exchange: Some(exchange),
        only_tunnel,
    };
    match poll_fn(|cx| lent.poll_head(cx, informed)).await {
        Ok(begun) => lent.response(begun),
        Err(broken) => Err(lent.failed(&broken).into()),
    }
}

/// A lease was dropped without a request.
pub(super) fn unused(hold: Hold, client: Sender) {
    let (pool, conn) = (hold.pool.clone(), hold.conn.clone());
    drop(hold);
    if conn.retired.get() {
        conn.closed_locally.set(true);
        client.end();
    } else if !client.is_ended() {
        pool.put_back(client, conn);
    }
}

/// A connection in use: what becomes of it depends on how the exchange ends.
struct Lent {
    /// None once it was given back, as the exchange.
    hold: Option<Hold>,
    exchange: Option<Exchange<Counted>>,
    /// It is to be a tunnel: as in Envoy, whoever waits for that closes what turns out to be none.
    only_tunnel: bool,
}

impl Lent {
    fn poll_head(&mut self, cx: &mut Context<'_>, informed: Informed<'_>) -> Poll<Result<Begun, Broken>> {
        match &mut self.exchange {
            Some(exchange) => exchange.poll_head(cx, informed),
            None => Poll::Ready(Err(Broken::Closed)),
        }
    }

    fn response(mut self, begun: Begun) -> Result<UpstreamResponse, NotSent> {
        let Some(hold) = &self.hold else {
            return Err(UpstreamFailure::ConnectionTermination.into());
        };
        let conn = hold.conn.clone();
        if self.only_tunnel && begun.ends {
            // It is none: its request was in vain.
            conn.cut.set(true);
            conn.retired.set(true);
        }
        if begun.closes && !begun.tunnel {
            hold.pool.cluster.stats.local().upstream_cx_close_notify.inc();
            conn.retired.set(true);
        }
        let end = begun.tunnel.then(Arc::<TunnelEnd>::default);
        let upgrade = end.as_ref().map(|end| self.tunnel(end));
        let body = match begun.ends || begun.tunnel {
            true => {
                self.complete();
                UpstreamBody::empty()
            }
            false => ResponseBody(self).into(),
        };
        Ok(UpstreamResponse {
            head_bytes: Some(begun.bytes),
            head: begun.head,
            body,
            conn: conn.info.clone(),
            upgrade: upgrade.flatten(),
            tunnel: end,
        })
    }

    /// Hands the byte stream over. The connection counts as open until whoever took it drops it.
    fn tunnel(&mut self, end: &Arc<TunnelEnd>) -> Option<LocalBoxFuture<'static, Option<Stream>>> {
        let hold = self.hold.take()?;
        let (ended, dropped) = oneshot::channel::<()>();
        let conn = hold.conn.clone();
        conn.retired.set(true);
        conn.tunnel.replace(Some(GivenAway {
            dropped,
            hold,
            end: self.only_tunnel.then(|| end.clone()),
        }));
        let (stream, read) = self.exchange.take()?.into_stream()?;
        let upgraded = Upgraded {
            head: read,
            stream,
            end: end.clone(),
            _counted: ended,
        };
        let stream = Stream::Other(Box::pin(upgraded));
        Some(std::future::ready(Some(stream)).boxed_local())
    }

    /// Sorts and counts what ended the exchange.
    fn failed(&mut self, broken: &Broken) -> UpstreamFailure {
        let failure = match broken {
            Broken::Closed => UpstreamFailure::ConnectionTermination,
            // A message that ends in its middle is malformed, not missing.
            Broken::Cut | Broken::Protocol(_) => UpstreamFailure::ProtocolError(broken.to_string().into()),
            Broken::Request(error) => UpstreamFailure::RequestBody(error.to_string().into()),
        };
        if let Some(hold) = &self.hold {
            let stats = hold.pool.cluster.stats.local();
            let remote = matches!(broken, Broken::Closed | Broken::Cut);
            hold.conn.closed_locally.set(self.only_tunnel || !remote);
            // A connection that breaks is no stream that is reset: there is nothing to count for that.
            if let UpstreamFailure::ProtocolError(_) = failure {
                stats.upstream_cx_protocol_error.inc();
            }
            // Says that the exchange did not end by itself.
            hold.conn.cut.set(true);
        }
        failure
    }

    /// The response is complete.
    fn complete(&mut self) {
        let (Some(hold), Some(exchange)) = (self.hold.take(), self.exchange.take()) else {
            return;
        };
        let (pool, conn) = (hold.pool.clone(), hold.conn.clone());
        drop(hold);
        if exchange.has_extra() {
            pool.cluster.stats.local().upstream_cx_protocol_error.inc();
        }
        match exchange.finish() {
            Finished::Free(client) => pool.put_back(client, conn),
            Finished::Spent => conn.closed_locally.set(true),
            Finished::Ended => {}
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Dropped in its middle: whatever else is on the wire, nothing can follow it.
        if let Some(hold) = &self.hold
            && self.exchange.is_some()
            && !hold.conn.cut.replace(true)
        {
            hold.conn.closed_locally.set(true);
        }
        self.exchange = None;
    }
}

/// The body of a response.
pub(super) struct ResponseBody(Lent);

impl ResponseBody {
    /// The next part. After an error the exchange counts as failed.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(exchange) = &mut self.0.exchange else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(exchange.poll_body(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|broken| {
                self.0.failed(&broken);
                match broken {
                    Broken::Request(error) => error,
                    broken => BodyError::Protocol(broken.to_string().into()),
                }
            })
        }))
    }

    /// The response is complete.
    pub(super) fn complete(mut self) {
        self.0.complete();
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.0.exchange.as_ref().is_none_or(Exchange::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.0
            .exchange
            .as_ref()
            .map_or_else(SizeHint::default, Exchange::size_hint)
    }
}

fn options(http: &HttpOptions) -> ClientOptions {
    ClientOptions {
        limits: H1Options {
            max_header_bytes: http.http1_headers_kb as usize * 1024,
            max_headers: http.max_headers_count as usize,
            enable_trailers: http.http1.trailers,
            case: http.http1.case,
            allow_chunked_length: http.http1.allow_chunked_length,
            ..H1Options::default()
        },
        absolute_url: http.http1.absolute_url,
    }
}

/// Watches a connection until it closes.
pub(super) async fn drive(open: &mut OpenGuard, stream: Stream, conn: Rc<Conn>) -> Result<(), ConnectFailure> {
    let cluster = open.pool.cluster.clone();
    let _: crate::stats::Stats<Http1CodecStats> = cluster.scope.block();
    let client = Client::new(Counted::new(stream, cluster.clone()), options(&cluster.http));
    open.ready(conn::Sender::H1(client.clone()), conn.clone());

    let mut timer = open.check_timers(&conn).map(Deadline::at);
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = client.poll_idle(cx) {
            return Poll::Ready(end);
        }
        while timer.as_mut().is_some_and(|t| Pin::new(t).poll(cx).is_ready()) {
            timer = open.check_timers(&conn).map(Deadline::at);
        }
        // The pool let go of it.
        if conn.retired.get() && conn.active.get() == 0 {
            return Poll::Ready(IdleEnd::Ended);
        }
        Poll::Pending
    })
    .await;
    match end {
        IdleEnd::Given => {
            let tunnel = conn.tunnel.take();
            if let Some(GivenAway {
                dropped,
                hold: _hold,
                end,
            }) = tunnel
            {
                // An error is the end, too.
                let _ = dropped.await;
                if let Some(end) = end {
                    conn.closed_locally.set(end.state() != TunnelState::Broken);
                    conn.cut.set(true);
                }
            }
            return Ok(());
        }
        IdleEnd::Unasked { timeout } => {
            if !timeout {
                cluster.stats.local().upstream_cx_protocol_error.inc();
            }
            conn.closed_locally.set(true);
        }
        IdleEnd::Ended | IdleEnd::Closed => {}
    }
    // Nobody is to take it from the pool while it closes.
    conn.retired.set(true);
    open.pool.forget(&conn);
    if let Some((mut counted, _)) = client.take_stream()
        && matches!(
            counted.stream,
            Stream::ClientTls(_) | Stream::Internal(_) | Stream::Other(_)
        )
    {
        // Best effort: the peer may be gone.
        let _ = tokio::time::timeout(CLOSE_TIME, counted.shutdown()).await;
    }
    Ok(())
}

/// A connection whose byte stream was taken over.
pub(super) struct GivenAway {
    /// Ends when whoever took it is done.
    dropped: oneshot::Receiver<()>,
    /// The place of its request.
    hold: Hold,
    /// How the tunnel ended, if it was to be one.
    end: Option<Arc<TunnelEnd>>,
}

/// How long a TLS close may take.
const CLOSE_TIME: std::time::Duration = std::time::Duration::from_secs(1);
