//! HTTP/1 towards an upstream: one connection, one exchange after the other.
//!
//! Whoever has an [`Exchange`] drives the connection from its own task: it writes the request and reads the response
//! without another task or a channel in between. Between exchanges a task of the connection's own watches it
//! ([`Client::poll_idle`]), and it writes what is left of a request whose response has begun.

mod request;
mod response;

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    CodecError,
    chunked::Step,
    decoder::Decoder,
    head,
    inbound::{self, BODY_READ},
    outgoing::{Filled, Out, Source},
};
use crate::http::{Body, BodyError, RequestHead, ResponseHead, codec::H1Options};

/// What a connection to an upstream is held to.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientOptions {
    /// Limits of responses (`max_response_headers_kb`, `max_headers_count`), `enable_trailers` and
    /// `header_key_format`.
    pub(crate) limits: H1Options,
    /// `send_fully_qualified_url`
    pub(crate) absolute_url: bool,
}

/// Why an exchange ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The upstream closed before it had answered anything.
    #[error("connection closed")]
    Closed,
    /// The upstream closed in the middle of its answer.
    #[error("unexpected end of stream")]
    Cut,
    /// The answer is none.
    #[error("{}", .0.details())]
    Protocol(CodecError),
    /// The request cannot be written, or its body broke off.
    #[error("{0}")]
    Request(BodyError),
}

impl From<CodecError> for Broken {
    fn from(error: CodecError) -> Self {
        Self::Protocol(error)
    }
}

/// How the wait between exchanges ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleEnd {
    /// This side ended the connection, or an exchange did.
    Ended,
    /// The upstream closed.
    Closed,
    /// The upstream sent bytes that nobody asked for. `timeout`: a 408, by which it says that it has waited for long.
    Unasked { timeout: bool },
    /// The byte stream was given away.
    Given,
}

/// A connection to an upstream.
pub(crate) struct Client<S> {
    inner: RefCell<Inner<S>>,
    options: ClientOptions,
}

struct Inner<S> {
    /// None once it was given away.
    stream: Option<S>,
    inbound: BytesMut,
    state: State,
    /// The connection's task.
    task: Option<Waker>,
    /// The rest of a request whose response has begun.
    upload: Option<Upload>,
    /// A part of the request could not be sent.
    unsent: bool,
    /// The request's body broke off after the response had begun; whoever reads the response is told.
    failed: bool,
    reader: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// There is an exchange.
    Busy,
    /// Nothing can follow.
    Ended(IdleEnd),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S, options: ClientOptions) -> Rc<Self> {
        Rc::new(Self {
            inner: RefCell::new(Inner {
                stream: Some(stream),
                inbound: BytesMut::new(),
                state: State::Idle,
                task: None,
                upload: None,
                unsent: false,
                failed: false,
                reader: None,
            }),
            options,
        })
    }

    /// Whether no exchange can start any more.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.inner.borrow().state, State::Ended(_))
    }

    /// The connection's task: follows an idle connection to its end, and writes what an exchange left it to write.
    pub(crate) fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<IdleEnd> {
        let upload = {
            let mut inner = self.inner.borrow_mut();
            if !inner.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                inner.task = Some(cx.waker().clone());
            }
            inner.upload.take()
        };
        if let Some(mut upload) = upload {
            match upload.poll(self, cx) {
                Poll::Ready(sent) => {
                    let mut inner = self.inner.borrow_mut();
                    inner.unsent |= sent.is_err();
                    if let Err(UploadEnd::Body(_)) = sent {
                        inner.failed = true;
                        if let Some(reader) = inner.reader.take() {
                            reader.wake();
                        }
                    }
                    drop(inner);
                    upload.end(sent.is_ok());
                }
                Poll::Pending => {
                    let mut inner = self.inner.borrow_mut();
                    if inner.state == State::Busy {
                        inner.upload = Some(upload);
                    }
                }
            }
        }
        self.inner.borrow_mut().watch(cx);
        match self.inner.borrow().state {
            State::Ended(end) => Poll::Ready(end),
            _ => Poll::Pending,
        }
    }

    /// Looks whether the connection is still good for a request. False: nothing may be sent over it.
    pub(crate) fn is_alive(&self, cx: &mut Context<'_>) -> bool {
        let mut inner = self.inner.borrow_mut();
        inner.watch(cx);
        if let State::Ended(_) = inner.state {
            inner.wake();
            return false;
        }
        true
    }

    /// Ends the connection.
    pub(crate) fn end(&self) {
        self.inner.borrow_mut().end(IdleEnd::Ended);
    }

    /// Begins an exchange; none when the head is no request. See [`Self::is_alive`].
    pub(crate) fn exchange(self: &Rc<Self>, head: RequestHead, body: Body) -> Option<Exchange<S>> {
        let mut out = Out::new();
        let asked = Asked {
            head: head.method == Method::HEAD,
            connect: head.method == Method::CONNECT && head.protocol.is_none(),
            upgrade: head.headers.contains_key(header::UPGRADE) || head.protocol.is_some(),
        };
        let end = matches!(body, Body::Empty) || http_body::Body::is_end_stream(&body);
        let framing = request::head(&mut out.front, &head, end, &self.options)?;
        head::give_map(head.headers);
        let mut inner = self.inner.borrow_mut();
        inner.state = State::Busy;
        (inner.unsent, inner.failed, inner.reader) = (false, false, None);
        drop(inner);
        Some(Exchange {
            client: self.clone(),
            asked,
            upload: Some(Upload {
                source: Source::new(body, framing),
                out,
                trailers: self.options.limits.enable_trailers,
            }),
            searched: 0,
            started: false,
            decoder: Decoder::Upgrade,
            body_read: BODY_READ,
            keep_alive: false,
            ended: false,
            closed: false,
        })
    }

    fn poll_write(&self, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.inner.borrow_mut().stream {
            Some(stream) => match parts {
                [only] => Pin::new(stream).poll_write(cx, only),
                _ => Pin::new(stream).poll_write_vectored(cx, parts),
            },
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner.borrow_mut().stream {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<S> Client<S> {
    /// The byte stream, with what was read of it; none once it was given away.
    pub(crate) fn take_stream(&self) -> Option<(S, Bytes)> {
        let mut inner = self.inner.borrow_mut();
        let read = std::mem::take(&mut inner.inbound).freeze();
        inner.stream.take().map(|stream| (stream, read))
    }
}

impl<S: AsyncRead + Unpin> Inner<S> {
    /// Reads an idle connection: anything that comes is its end.
    fn watch(&mut self, cx: &mut Context<'_>) {
        if self.state != State::Idle {
            return;
        }
        let Some(stream) = &mut self.stream else { return };
        let end = match inbound::read_ahead(stream, &mut self.inbound, cx) {
            Poll::Pending => return,
            Poll::Ready(Ok(n)) if n > 0 => IdleEnd::Unasked {
                timeout: self.inbound.get(8..12) == Some(b" 408"),
            },
            Poll::Ready(_) => IdleEnd::Closed,
        };
        self.state = State::Ended(end);
    }
}

impl<S> Inner<S> {
    fn end(&mut self, end: IdleEnd) {
        if !matches!(self.state, State::Ended(_)) {
            self.state = State::Ended(end);
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

/// A request on its way out.
struct Upload {
    source: Source,
    out: Out,
    trailers: bool,
}

/// Why the rest of a request cannot be sent.
enum UploadEnd {
    /// The connection takes no more.
    Closed,
    Body(BodyError),
}

impl Upload {
    /// Ready when all of it is out.
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &Client<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadEnd>> {
        loop {
            let filled = self.source.fill(&mut self.out, cx, self.trailers);
            if filled == Filled::Broken {
                let error = self.source.take_error();
                let error = error.unwrap_or(BodyError::Reset("not as long as announced"));
                return Poll::Ready(Err(UploadEnd::Body(error)));
            }
            let written = self.out.poll_write(|parts| client.poll_write(cx, parts));
            match (filled, written) {
                (_, Poll::Ready(Err(_))) => return Poll::Ready(Err(UploadEnd::Closed)),
                (Filled::Full, Poll::Ready(Ok(()))) => {}
                (Filled::End, Poll::Ready(Ok(()))) => {
                    return client.poll_flush(cx).map_err(|_| UploadEnd::Closed);
                }
                (Filled::Waits | Filled::Broken, Poll::Ready(Ok(()))) => {
                    // What TLS has taken but not sent would wait for ever.
                    return match client.poll_flush(cx) {
                        Poll::Ready(Err(_)) => Poll::Ready(Err(UploadEnd::Closed)),
                        _ => Poll::Pending,
                    };
                }
                (_, Poll::Pending) => return Poll::Pending,
            }
        }
    }

    /// Whether all bytes that were announced are out, though the body may not know that it has ended.
    fn is_out(&self) -> bool {
        self.source.has_all() && self.out.left() == 0
    }

    fn end(self, whole: bool) {
        if whole {
            self.out.give_back();
        }
    }
}

/// What the request says about its response.
#[derive(Debug, Clone, Copy)]
struct Asked {
    head: bool,
    connect: bool,
    upgrade: bool,
}

/// A response as it begins.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) head: ResponseHead,
    /// How many bytes of head came.
    pub(crate) bytes: u64,
    /// What follows are the bytes of a tunnel: see [`Exchange::into_stream`].
    pub(crate) tunnel: bool,
    /// The upstream says that it closes afterwards.
    pub(crate) closes: bool,
    /// Nothing follows.
    pub(crate) ends: bool,
}

/// What becomes of a connection after an exchange.
pub(crate) enum Finished<S> {
    /// It is free for another.
    Free(Rc<Client<S>>),
    /// It can take no other, and is closed.
    Spent,
    /// The upstream has ended it.
    Ended,
}

/// One request and its response. Dropped before [`Self::finish`], the connection ends.
pub(crate) struct Exchange<S> {
    client: Rc<Client<S>>,
    asked: Asked,
    /// None once the request is out, or is the connection's task's to send.
    upload: Option<Upload>,
    searched: usize,
    /// Bytes of an answer came.
    started: bool,
    decoder: Decoder,
    body_read: usize,
    keep_alive: bool,
    /// The response was read to its end.
    ended: bool,
    /// The upstream has closed.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Sends the request until the head of a response comes. Informational ones are handed on.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        informed: &mut dyn FnMut(ResponseHead),
    ) -> Poll<Result<Begun, Broken>> {
        if let Some(upload) = &mut self.upload {
            match upload.poll(&self.client, cx) {
                Poll::Pending => {}
                Poll::Ready(Err(UploadEnd::Body(error))) => return Poll::Ready(Err(Broken::Request(error))),
                Poll::Ready(sent) => {
                    // There may be an answer all the same.
                    self.client.inner.borrow_mut().unsent |= sent.is_err();
                    if let Some(upload) = self.upload.take() {
                        upload.end(sent.is_ok());
                    }
                }
            }
        }
        loop {
            while let Some(block) = self.next_head()? {
                let response = response::parse(&block, self.asked, &self.client.options)?;
                if response.head.status.is_informational() && response.head.status != StatusCode::SWITCHING_PROTOCOLS {
                    self.started = !self.client.inner.borrow().inbound.is_empty();
                    // Those that have no name end here.
                    if response.head.status.as_u16() <= 104 {
                        informed(response.head);
                    }
                    continue;
                }
                return Poll::Ready(Ok(self.begin(response, block.len() as u64)));
            }
            let mut inner = self.client.inner.borrow_mut();
            let Inner { stream, inbound, .. } = &mut *inner;
            let Some(stream) = stream else {
                return Poll::Ready(Err(Broken::Closed));
            };
            match std::task::ready!(inbound::read_ahead(stream, inbound, cx)) {
                Ok(n) if n > 0 => self.started = true,
                _ if self.started => return Poll::Ready(Err(Broken::Cut)),
                _ => return Poll::Ready(Err(Broken::Closed)),
            }
        }
    }

    fn next_head(&mut self) -> Result<Option<Bytes>, CodecError> {
        let mut inner = self.client.inner.borrow_mut();
        let inbound = &mut inner.inbound;
        if inbound.is_empty() {
            return Ok(None);
        }
        let Some(end) = head::find_end(inbound, &mut self.searched) else {
            response::check_start(inbound, &self.client.options)?;
            return Ok(None);
        };
        self.searched = 0;
        Ok(Some(match end == inbound.len() {
            true => std::mem::take(inbound).freeze(),
            false => inbound.split_to(end).freeze(),
        }))
    }

    fn begin(&mut self, response: response::Response, bytes: u64) -> Begun {
        self.decoder = response.length.into();
        self.keep_alive = response.keep_alive;
        let tunnel = matches!(self.decoder, Decoder::Upgrade);
        self.ended = self.decoder.is_done();
        if !self.ended
            && let Some(upload) = self.upload.take()
        {
            // The rest of the request goes on by itself, however slowly the response is read.
            let mut inner = self.client.inner.borrow_mut();
            inner.upload = Some(upload);
            inner.wake();
        }
        Begun {
            head: response.head,
            bytes,
            tunnel,
            closes: response.closes,
            ends: self.ended,
        }
    }

    /// The next part of the response's body.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let mut inner = self.client.inner.borrow_mut();
            if inner.failed {
                let error = BodyError::Reset("the request broke off");
                return Poll::Ready(Some(Err(Broken::Request(error))));
            }
            if inner.upload.is_some() {
                inner.reader = Some(cx.waker().clone());
            }
            let Inner { stream, inbound, .. } = &mut *inner;
            let step = self.decoder.decode(inbound, &self.client.options.limits);
            match step {
                Ok(Step::Starved) => {}
                Ok(step) => {
                    self.decoder.look_ahead(inbound);
                    self.ended = self.decoder.is_done();
                    let frame = super::wire::frame(step);
                    self.ended |= frame.is_none();
                    return Poll::Ready(frame.map(Ok));
                }
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            let Some(stream) = stream else {
                return Poll::Ready(Some(Err(Broken::Cut)));
            };
            let left = match self.decoder {
                Decoder::Exact(left) => Some(left),
                _ => None,
            };
            match std::task::ready!(inbound::read_body(stream, inbound, left, &mut self.body_read, cx)) {
                Ok(n) if n > 0 => {}
                Ok(_) if matches!(self.decoder, Decoder::UntilClose) => {
                    self.ended = true;
                    self.closed = true;
                }
                _ => return Poll::Ready(Some(Err(Broken::Cut))),
            }
        }
    }

    /// Whether the response was read to its end.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// What is to come of the body, as far as it is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.decoder.left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }

    /// Whether the upstream sent more than its response.
    pub(crate) fn has_extra(&self) -> bool {
        self.ended && !self.client.inner.borrow().inbound.is_empty()
    }

    /// Ends the exchange.
    pub(crate) fn finish(self) -> Finished<S> {
        let mut inner = self.client.inner.borrow_mut();
        let rest = self.upload.as_ref().or(inner.upload.as_ref());
        let request_done = !inner.unsent && rest.is_none_or(Upload::is_out);
        if self.closed {
            return Finished::Ended;
        }
        if !(self.ended && request_done && self.keep_alive && inner.inbound.is_empty()) {
            return Finished::Spent;
        }
        // What is left of its buffer is not kept while nobody needs it.
        inner.inbound = BytesMut::new();
        inner.state = State::Idle;
        let rest = inner.upload.take();
        let task = inner.task.clone();
        if let Some(task) = task {
            // Its task need not run to be told when something comes.
            inner.watch(&mut Context::from_waker(&task));
        }
        let free = inner.state == State::Idle;
        if !free {
            inner.wake();
        }
        drop(inner);
        drop(rest);
        match free {
            true => Finished::Free(self.client.clone()),
            false => Finished::Ended,
        }
    }

    /// The byte stream of a tunnel, with what was read of it already.
    pub(crate) fn into_stream(self) -> Option<(S, Bytes)> {
        let taken = self.client.take_stream();
        self.client.inner.borrow_mut().end(IdleEnd::Given);
        taken
    }
}

impl<S> Drop for Exchange<S> {
    fn drop(&mut self) {
        let mut inner = self.client.inner.borrow_mut();
        if inner.state == State::Busy {
            let upload = inner.upload.take();
            inner.end(IdleEnd::Ended);
            drop(inner);
            // Its body may be anything: it is dropped when nothing is borrowed.
            drop(upload);
        }
    }
}

#[cfg(test)]
mod tests;
