//! HTTP/2 connections, on the h2 library.
//!
//! [`drive`] is a connection's task; [`send`] a request over it, whose body is sent beside the response. What the
//! library keeps to itself is seen by the [`Observer`] under it.

mod body;
mod request;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use h2::{
    SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Response, StatusCode, header};
use tokio::task::JoinHandle;

use super::{
    UpstreamBody, UpstreamResponse,
    core::{self, Conn, OpenGuard},
    io::Counted,
    lease::{Hold, Informed, NotSent},
};
use crate::{
    http::{
        Body, RequestHead, ResponseHead,
        codec::http2::{self, Observed, Observer, Pinger, Pump, Pumped},
        inline_headers,
    },
    net::{Deadline, Stream},
    upstream::{ConnectFailure, UpstreamFailure},
};

pub(super) use body::ResponseBody;

/// What waits for a slow upstream, of one stream.
const SEND_BUFFER: usize = 256 * 1024;

/// What requests are sent through; one for all streams of a connection.
#[derive(Clone)]
pub(super) struct Sender {
    requests: SendRequest<Bytes>,
    link: Rc<Link>,
}

/// What a connection's task and its streams share.
struct Link {
    seen: Rc<Observer>,
    /// The task has ended, or ends.
    closed: Cell<bool>,
    /// When the upstream last sent a frame.
    last_read: Cell<Instant>,
    /// A PING goes out ahead of the next stream.
    ping: Cell<bool>,
    /// `connection_idle_interval` asks for it.
    watched: bool,
}

impl Sender {
    /// No further request may be sent.
    pub(super) fn is_closed(&self) -> bool {
        self.link.closed.get() || self.link.seen.goaway().is_some()
    }
}

/// Sends a request and waits for the head of its response.
pub(super) async fn send(
    hold: Hold,
    sender: Sender,
    head: RequestHead,
    body: Body,
    informed: Informed<'_>,
) -> Result<UpstreamResponse, NotSent> {
    let mut guard = StreamGuard {
        hold: Some(hold),
        phase: Phase::Unsent,
        outgoing: None,
    };
    let Sender { mut requests, link } = sender;
    if link.watched {
        link.ping.set(true);
    }
    if poll_fn(|cx| requests.poll_ready(cx)).await.is_err() {
        return Err(NotSent::Unsent(Box::new((head, body))));
    }
    let upgrade = request::upgrade_of(&head);
    let tunnels = upgrade.is_some() || head.method == http::Method::CONNECT;
    let ends = !tunnels && http_body::Body::is_end_stream(&body);
    let request = match &guard.hold {
        Some(hold) => request::of(head, upgrade.as_ref(), &hold.pool),
        None => return Err(UpstreamFailure::ConnectionTermination.into()),
    };
    guard.phase = Phase::InFlight;
    let (mut response, stream) = match requests.send_request(request, ends) {
        Ok(sent) => sent,
        Err(error) => return Err(guard.fail(UpstreamFailure::of_http2(&error)).into()),
    };
    drop(requests);
    if tunnels {
        let head = poll_fn(|cx| poll_head(&mut response, informed, cx)).await;
        let head = head.map_err(|error| guard.fail_with(&error))?;
        return guard.tunnel(head, stream, upgrade);
    }
    let outgoing = Outgoing::new(stream, ends);
    let (stream, sent) = (outgoing.stream.clone(), outgoing.sent.clone());
    guard.outgoing = Some(outgoing);
    if ends {
        let head = poll_fn(|cx| poll_head(&mut response, informed, cx)).await;
        let head = head.map_err(|error| guard.fail_with(&error))?;
        return guard.response(head);
    }
    // The body and the response go their own ways.
    let mut body = body;
    let mut pump = Pump::new(None);
    let mut pumping = true;
    let head = poll_fn(|cx| {
        if pumping {
            match pump.poll(cx, &mut stream.borrow_mut(), &mut body) {
                Poll::Ready(Pumped::Broken) => return Poll::Ready(Err(None)),
                Poll::Ready(pumped) => {
                    pumping = false;
                    sent.set(pumped == Pumped::Sent);
                }
                Poll::Pending => {}
            }
        }
        poll_head(&mut response, informed, cx).map_err(Some)
    })
    .await;
    let head = match head {
        Ok(head) => head,
        Err(Some(error)) => return Err(guard.fail_with(&error)),
        Err(None) => {
            stream.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR);
            let failure = UpstreamFailure::RequestBody("the request broke off".into());
            return Err(guard.fail(failure).into());
        }
    };
    if pumping && let Some(outgoing) = &mut guard.outgoing {
        outgoing.rest = Some(tokio::task::spawn_local(async move {
            let pumped = poll_fn(|cx| pump.poll(cx, &mut stream.borrow_mut(), &mut body)).await;
            match pumped {
                Pumped::Broken => stream.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR),
                pumped => sent.set(pumped == Pumped::Sent),
            }
        }));
    }
    guard.response(head)
}

/// The sending half of a stream, and what is left of a request's body when its response has begun.
struct Outgoing {
    stream: Rc<RefCell<SendStream<Bytes>>>,
    /// The request is out to its end.
    sent: Rc<Cell<bool>>,
    rest: Option<JoinHandle<()>>,
}

impl Outgoing {
    fn new(stream: SendStream<Bytes>, sent: bool) -> Self {
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

fn poll_head(
    response: &mut ResponseFuture,
    informed: &mut (impl FnMut(ResponseHead) + ?Sized),
    cx: &mut Context<'_>,
) -> Poll<Result<Response<h2::RecvStream>, h2::Error>> {
    while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
        informed(head_of(interim.into_parts().0));
    }
    Pin::new(response).poll(cx)
}

fn head_of(parts: http::response::Parts) -> ResponseHead {
    ResponseHead {
        status: parts.status,
        version: http::Version::HTTP_2,
        headers: parts.headers,
        spelling: None,
    }
}

/// A lease was dropped without a request.
pub(super) fn unused(hold: Hold) {
    drop(StreamGuard {
        hold: Some(hold),
        phase: Phase::Unsent,
        outgoing: None,
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
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
struct StreamGuard {
    /// None once it was given back.
    hold: Option<Hold>,
    phase: Phase,
    /// None before anything was sent.
    outgoing: Option<Outgoing>,
}

impl StreamGuard {
    fn response(mut self, response: Response<h2::RecvStream>) -> Result<UpstreamResponse, NotSent> {
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
        })
    }

    /// The answer to CONNECT, plain or extended.
    fn tunnel(
        mut self,
        response: Response<h2::RecvStream>,
        mut send: SendStream<Bytes>,
        upgrade: Option<HeaderValue>,
    ) -> Result<UpstreamResponse, NotSent> {
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
        let stream = http2::tunnel(incoming, send);
        let upgrade: LocalBoxFuture<'static, Option<Stream>> = async move { Some(stream) }.boxed_local();
        Ok(UpstreamResponse {
            head_bytes: None,
            head,
            body: UpstreamBody::empty(),
            conn,
            upgrade: Some(upgrade),
        })
    }

    fn fail_with(&mut self, error: &h2::Error) -> NotSent {
        self.fail(UpstreamFailure::of_http2(error)).into()
    }

    fn fail(&mut self, failure: UpstreamFailure) -> UpstreamFailure {
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

/// Tells streams that their connection is over, however its task ends.
struct Closes(Rc<Link>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.closed.set(true);
    }
}

/// Serves requests over a stream until it closes.
pub(super) async fn drive(open: &mut OpenGuard, stream: Stream, conn: Rc<Conn>) -> Result<(), ConnectFailure> {
    let cluster = open.pool.cluster.clone();
    let options = &cluster.http.http2;
    let seen = Observer::client(cluster.scope.block(), options.floods);
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .header_table_size(options.hpack_table_size)
        .initial_max_send_streams(options.max_concurrent_streams as usize)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(http2::library_limit(
            cluster.http.max_response_headers_kb as usize * 1024,
        ));
    let io = Observed::new(Counted::new(stream, cluster.clone()), seen.clone());
    let (requests, mut connection) = builder
        .handshake::<_, Bytes>(io)
        .await
        .map_err(|e| ConnectFailure::Remote {
            reason: e.to_string().into(),
        })?;
    let link = Rc::new(Link {
        seen: seen.clone(),
        closed: Cell::new(false),
        last_read: Cell::new(Instant::now()),
        ping: Cell::new(false),
        watched: options.keepalive.is_some_and(|k| k.idle_interval.is_some()),
    });
    let _closes = Closes(link.clone());
    let mut pinger = options
        .keepalive
        .and_then(|config| Some(Pinger::new(config, connection.ping_pong()?)));
    conn.max_streams.set(connection.max_concurrent_send_streams());
    let sender = Sender {
        requests,
        link: link.clone(),
    };
    open.ready(core::Sender::H2(sender), conn.clone());

    let stats = cluster.stats.local();
    let mut timer = open.check_timers(&conn).map(Deadline::at);
    let mut frames = 0;
    let ended = poll_fn(|cx| {
        if link.ping.take()
            && let Some(pinger) = &mut pinger
            && pinger.wants_ping(link.last_read.get())
        {
            pinger.ping(&seen);
        }
        let polled = Pin::new(&mut connection).poll(cx);
        if seen.goaway().is_some() && !conn.retired.get() {
            stats.upstream_cx_close_notify.inc();
            open.pool.retire(&conn);
        }
        if let Poll::Ready(ended) = polled {
            return Poll::Ready(ended.err().map(|error| error.to_string()));
        }
        if std::mem::replace(&mut frames, seen.frames_read()) != frames && link.watched {
            link.last_read.set(Instant::now());
        }
        for (_, code) in seen.take_library_resets() {
            if h2::Reason::from(code) == h2::Reason::PROTOCOL_ERROR {
                seen.stats.local().rx_messaging_error.inc();
            }
        }
        open.streams_allowed(&conn, connection.max_concurrent_send_streams());
        if let Some(pinger) = &mut pinger
            && pinger.poll(cx, &seen).is_ready()
        {
            seen.stats.local().keepalive_timeout.inc();
            conn.closed_locally.set(true);
            return Poll::Ready(Some("no answer to a PING".to_owned()));
        }
        while timer.as_mut().is_some_and(|t| Pin::new(t).poll(cx).is_ready()) {
            timer = open.check_timers(&conn).map(Deadline::at);
        }
        Poll::Pending
    })
    .await;
    if let Some(error) = ended {
        tracing::debug!(cluster = %cluster.name, %error, "upstream connection ended");
    }
    Ok(())
}
