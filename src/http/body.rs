//! Bodies: one enum for what usually happens, a box for what filters wrap around it.

use std::{
    borrow::Cow,
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    Flag,
    codec::{Http2Body, RequestBody},
};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The codec's error: a reset, a malformed chunk, a closed connection.
    #[error(transparent)]
    Codec(#[from] hyper::Error),
    /// The HTTP/2 codec's error: a reset, or the end of its connection.
    #[error(transparent)]
    Http2(h2::Error),
    /// A gRPC or HTTP/2 layer's error, of side calls.
    #[error(transparent)]
    Other(Box<dyn StdError + Send + Sync>),
    /// More bytes than a configured limit.
    #[error("body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// No byte for longer than the stream's idle timeout allows.
    #[error("stream idle timeout")]
    IdleTimeout,
    /// The response broke off or took too long: what the log says of it.
    #[error("{details}")]
    Upstream {
        /// The response flag.
        flag: Flag,
        /// `%RESPONSE_CODE_DETAILS%`
        details: Cow<'static, str>,
    },
    /// The message cannot be read on.
    #[error("{0}")]
    Protocol(Cow<'static, str>),
    /// The stream was reset by this side, for the reason named.
    #[error("stream reset: {0}")]
    Reset(&'static str),
}

/// Any body, lazily read; dropping it cancels whatever produces it.
#[derive(Default)]
pub enum Body {
    /// No bytes, no trailers.
    #[default]
    Empty,
    /// All bytes at once.
    Full(Bytes),
    /// Straight from hyper: of upstream.
    Incoming(Incoming),
    /// Straight from the HTTP/1 codec.
    Http1(RequestBody),
    /// Straight from the HTTP/2 codec.
    Http2(Http2Body),
    /// Wrapped by filters, or made by hand.
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// Boxes `body`, which need not be `Send`: bodies stay on their worker.
    pub fn boxed(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self::Boxed(Box::pin(body))
    }

    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(bytes)
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Incoming(_) => "Incoming",
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
            Self::Boxed(_) => "Boxed",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            this @ Self::Full(_) => match std::mem::take(this) {
                Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Self::Incoming(b) => Pin::new(b).poll_frame(cx).map_err(BodyError::Codec),
            Self::Http1(b) => Pin::new(b).poll_frame(cx),
            Self::Http2(b) => Pin::new(b).poll_frame(cx),
            Self::Boxed(b) => b.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Incoming(b) => b.is_end_stream(),
            Self::Http1(b) => b.is_end_stream(),
            Self::Http2(b) => b.is_end_stream(),
            Self::Boxed(b) => b.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(b) => SizeHint::with_exact(b.len() as u64),
            Self::Incoming(b) => b.size_hint(),
            Self::Http1(b) => b.size_hint(),
            Self::Http2(b) => b.size_hint(),
            Self::Boxed(b) => b.size_hint(),
        }
    }
}
