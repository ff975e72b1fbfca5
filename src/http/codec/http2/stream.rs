//! One stream: the handler's answer, then its body as fast as the client's window allows.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::{
    Reset,
    body::Incoming,
    observe::Observer,
    pump::{Pump, Pumped},
    tunnel::{self, Left},
};
use crate::{
    http::{
        Body, ResponseHead,
        codec::{CodecRequest, Handler, date},
    },
    net::Stream,
    server::overload::streams::Account,
};

/// What the streams of a connection share.
pub(super) struct Connection {
    pub(super) seen: Rc<Observer>,
    /// A stream wants the connection to be drained.
    pub(super) drain: Cell<bool>,
    /// Why the connection ended with streams open.
    pub(super) ended: Cell<Option<Reset>>,
    /// How often what streams had to say was written.
    pub(super) written: Cell<u64>,
    /// Who waits for the next time.
    pub(super) waiting: RefCell<Vec<Waker>>,
}

impl Connection {
    /// Waits until what the streams have said so far is with the socket: a reset takes back what is not.
    async fn write_out(&self) {
        let before = self.written.get();
        poll_fn(|cx| {
            if self.written.get() > before {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A stream's side of the codec, for whoever answers it.
pub struct StreamState {
    id: u32,
    connection: Rc<Connection>,
    respond: RefCell<SendResponse<Bytes>>,
    /// The connection that a CONNECT asked for failed: the stream is reset for that after its answer.
    connect_failed: Cell<bool>,
    /// Extended CONNECT: the 101 goes out as 200.
    extended: bool,
    /// Why it ended early.
    ended: Cell<Option<Reset>>,
    /// A tunnel's end, or the answer that refused it, came before the client's end.
    tunnel_cut: Arc<AtomicBool>,
}

impl StreamState {
    pub(super) fn new(connection: Rc<Connection>, respond: SendResponse<Bytes>, extended: bool) -> Rc<Self> {
        let id = respond.stream_id().as_u32();
        Rc::new(Self {
            id,
            connection,
            respond: RefCell::new(respond),
            extended,
            connect_failed: Cell::new(false),
            ended: Cell::new(None),
            tunnel_cut: Arc::default(),
        })
    }

    /// Why the stream was reset, by either side.
    pub(in super::super) fn reset(&self) -> Option<Reset> {
        self.ended.get().or(self.connection.ended.get())
    }

    /// Whether a tunnel's end came before the client's.
    pub(in super::super) fn tunnel_cut(&self) -> bool {
        self.tunnel_cut.load(Ordering::Acquire)
    }

    /// Asks for the end of the connection once its streams are over.
    pub(in super::super) fn drain(&self) {
        self.connection.drain.set(true);
    }

    /// Whether it was asked already.
    pub(in super::super) fn draining(&self) -> bool {
        self.connection.drain.get()
    }

    /// Sends an informational response.
    pub(in super::super) fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        // Too late, or the stream is gone.
        let _ = self.respond.borrow_mut().send_informational(response);
    }

    fn send_reset(&self, reason: Reason) {
        self.connection.seen.expect_reset(self.id);
        self.respond.borrow_mut().send_reset(reason);
    }

    /// The connection that a CONNECT asked for failed.
    pub(in super::super) fn note_connect_failed(&self) {
        self.connect_failed.set(true);
    }

    /// Notes a reset by the client, if there was one.
    pub(in super::super) fn note_peer_reset(&self) {
        match self.connection.seen.take_peer_reset(self.id) {
            Some(code) if code == u32::from(Reason::REFUSED_STREAM) => {
                self.ended.set(Some(Reset::Remote("http2.remote_refuse")));
            }
            Some(_) => self.ended.set(Some(Reset::Remote("http2.remote_reset"))),
            None => {}
        }
    }

    /// Notes who reset the stream.
    fn note_reset(&self, gone: bool) {
        self.ended.set(match self.connection.seen.take_peer_reset(self.id) {
            Some(code) if code == u32::from(Reason::REFUSED_STREAM) => Some(Reset::Remote("http2.remote_refuse")),
            Some(_) => Some(Reset::Remote("http2.remote_reset")),
            None if gone => None,
            // What came was not the message that had been announced.
            None => Some(Reset::Protocol("http2.remote_reset")),
        });
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = ready!(self.respond.borrow_mut().poll_reset(cx));
        self.note_reset(reset.is_err());
        Poll::Ready(())
    }
}

/// What follows a head that asks for an upgrade.
pub(super) struct Promised {
    pub(super) taker: oneshot::Sender<Stream>,
    pub(super) body: RecvStream,
}

/// Answers a request. `patience`: how long a client may keep its window shut.
pub(super) async fn run<H: Handler + 'static>(
    stream: Rc<StreamState>,
    request: CodecRequest,
    promised: Option<Promised>,
    incoming: Option<Rc<Incoming>>,
    handler: Rc<H>,
    patience: Option<Duration>,
) {
    let asks_open = promised.as_ref().is_some_and(|p| !p.body.is_end_stream());
    stream.tunnel_cut.store(asks_open, Ordering::Release);
    // Boxed apart: a long response does not keep room for what led to it.
    let account = handler.account();
    let mut answering = Box::pin(handler.handle(request));
    let answer = poll_fn(|cx| {
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        let answer = answering.as_mut().poll(cx);
        if let Some(incoming) = &incoming
            && let Poll::Ready(refused) = incoming.poll_refused(cx)
        {
            stream.ended.set(Some(refused.reset()));
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Poll::Ready(None);
        }
        answer.map(Some)
    })
    .await;
    let Some((head, body)) = answer else { return };
    drop(answering);
    let promised = promised.filter(|p| is_accepted(&head) && !p.taker.is_closed());
    let ends = promised.is_none() && body.is_end_stream();
    let sent = {
        let response = response(head, stream.extended);
        stream.respond.borrow_mut().send_response(response, ends)
    };
    // An error: the stream is gone.
    let Ok(mut send) = sent else { return };
    if let Some(Promised { taker, body }) = promised {
        stream.connection.seen.expect_reset(stream.id);
        let (leave, left) = oneshot::channel();
        stream.tunnel_cut.store(false, Ordering::Release);
        // Who wanted the bytes may have gone.
        let _ = taker.send(tunnel::tunnel(body, send, leave, stream.tunnel_cut.clone()));
        // RFC 9113, 8.5: what is behind the tunnel broke. After an end in good order the library resets what the client
        // may go on sending, with NO_ERROR.
        if left.await == Ok(Left::Untold) {
            stream.connection.write_out().await;
            stream.send_reset(Reason::CONNECT_ERROR);
        }
        return;
    }
    if !ends {
        send_body(&stream, &mut send, body, patience, account).await;
    }
    if stream.connect_failed.get() {
        // RFC 9113, 8.5.
        stream.connection.write_out().await;
        stream.send_reset(Reason::CONNECT_ERROR);
    }
    // The library resets what the client may go on sending, with NO_ERROR.
    if incoming.is_some_and(|incoming| incoming.close()) {
        stream.connection.seen.expect_reset(stream.id);
    }
}

fn is_accepted(head: &ResponseHead) -> bool {
    head.status == StatusCode::SWITCHING_PROTOCOLS || head.status.is_success()
}

fn response(head: ResponseHead, extended: bool) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response.headers_mut().entry(header::DATE).or_insert_with(date::value);
    if extended && head.status == StatusCode::SWITCHING_PROTOCOLS {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(header::UPGRADE);
        response.headers_mut().remove(header::CONNECTION);
    }
    response
}

/// Sends a body.
async fn send_body(
    stream: &StreamState,
    send: &mut SendStream<Bytes>,
    mut body: Body,
    patience: Option<Duration>,
    account: Option<Rc<Account>>,
) {
    let mut pump = Pump::new(patience);
    let end = poll_fn(|cx| {
        let Some(account) = &account else {
            return pump.poll(cx, send, &mut body);
        };
        if account.poll_reset(cx).is_ready() {
            stream.ended.set(Some(Reset::Overload));
            return Poll::Ready(Pumped::Broken);
        }
        let polled = pump.poll(cx, send, &mut body);
        account.set(pump.held());
        polled
    })
    .await;
    match end {
        Pumped::Sent => {}
        Pumped::Gone => stream.note_reset(false),
        Pumped::Broken => {
            stream.connection.write_out().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Pumped::Stuck => {
            stream.connection.seen.stats.local().tx_flush_timeout.inc();
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
