//! What a stream may ask of its connection while it is being answered.

use std::rc::Rc;

use http::{HeaderMap, StatusCode};

use super::{
    CodecError,
    http1::{SentHead, WireHandle},
    http2::{Reset, StreamState},
};

/// A stream's hold on its connection.
#[derive(Clone, Default)]
pub struct StreamHandle(Kind);

#[derive(Clone, Default)]
enum Kind {
    /// There is no stream.
    #[default]
    None,
    /// It was reset before it became a request, for this reason.
    Refused(Reset),
    Http1(WireHandle),
    Http2(Rc<StreamState>),
}

impl StreamHandle {
    /// Of a stream that was reset before it became a request.
    pub fn refused(reset: Reset) -> Self {
        Self(Kind::Refused(reset))
    }

    pub(super) fn http1(wire: WireHandle) -> Self {
        Self(Kind::Http1(wire))
    }

    pub(super) fn http2(stream: Rc<StreamState>) -> Self {
        Self(Kind::Http2(stream))
    }

    /// What broke the request's body. The task of the connection is woken when that happens, so whoever runs
    /// on it need not be told.
    pub fn fault(&self) -> Option<CodecError> {
        match &self.0 {
            Kind::Http1(wire) => wire.fault(),
            _ => None,
        }
    }

    /// The head of the response, once it is written; HTTP/2 does not tell.
    pub fn sent_head(&self) -> Option<SentHead> {
        match &self.0 {
            Kind::Http1(wire) => wire.sent_head(),
            _ => None,
        }
    }

    /// The bytes after an upgrade broke off: the client may have reset the stream.
    pub fn note_tunnel_reset(&self) {
        if let Kind::Http2(stream) = &self.0 {
            stream.note_peer_reset();
        }
    }

    /// The connection that a CONNECT asked for failed, which HTTP/2 tells by the code of its reset.
    pub fn note_connect_failed(&self) {
        if let Kind::Http2(stream) = &self.0 {
            stream.note_connect_failed();
        }
    }

    /// Whether the bytes after an upgrade ended while the client was not done, which resets a stream of HTTP/2.
    pub fn tunnel_cut(&self) -> bool {
        match &self.0 {
            Kind::Http2(stream) => stream.tunnel_cut(),
            _ => false,
        }
    }

    /// Why the stream was reset.
    pub fn reset(&self) -> Option<Reset> {
        match &self.0 {
            Kind::Refused(reset) => Some(*reset),
            Kind::Http2(stream) => stream.reset(),
            Kind::None | Kind::Http1(_) => None,
        }
    }

    /// Sends an informational response ahead of the one that counts.
    pub fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        match &self.0 {
            Kind::Http1(wire) => wire.inform(status, headers),
            Kind::Http2(stream) => stream.inform(status, headers),
            Kind::None | Kind::Refused(_) => {}
        }
    }

    /// Begins to end the connection because of a drain: requests that cross with the word are answered, and after
    /// `drain_timeout` it closes.
    pub fn drain(&self) {
        match &self.0 {
            Kind::Http1(wire) => wire.drain(),
            Kind::Http2(stream) => stream.drain(),
            Kind::None | Kind::Refused(_) => {}
        }
    }

    /// Ends an HTTP/2 connection once its streams are over; `due` is asked unless it does so already.
    pub fn drain_if(&self, due: impl FnOnce() -> bool) {
        if let Kind::Http2(stream) = &self.0
            && !stream.draining()
            && due()
        {
            stream.drain();
        }
    }
}
