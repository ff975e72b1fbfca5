//! The body of a response, which frees its connection at its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{h1, h2};
use crate::http::{Body, BodyError};

/// The body of a response. Counts are given back when it ends or is dropped, and the connection with them.
pub struct UpstreamBody(Inner);

// The large one is the usual one, and a box for each response is what it would cost to even them out.
#[allow(clippy::large_enum_variant)]
enum Inner {
    Ended,
    H1(h1::ResponseBody),
    H2(h2::ResponseBody),
}

impl UpstreamBody {
    /// A body without bytes; its connection is free already.
    pub(super) fn empty() -> Self {
        Self(Inner::Ended)
    }
}

impl From<h1::ResponseBody> for UpstreamBody {
    fn from(body: h1::ResponseBody) -> Self {
        Self(Inner::H1(body))
    }
}

impl From<h2::ResponseBody> for UpstreamBody {
    fn from(body: h2::ResponseBody) -> Self {
        Self(Inner::H2(body))
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Inner::Ended => "UpstreamBody(ended)",
            _ => "UpstreamBody",
        })
    }
}

impl From<UpstreamBody> for Body {
    fn from(body: UpstreamBody) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::boxed(body)
        }
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (frame, ended) = match &mut self.0 {
            Inner::Ended => return Poll::Ready(None),
            Inner::H1(body) => (ready!(body.poll_frame(cx)), body.is_end_stream()),
            Inner::H2(body) => (ready!(body.poll_frame(cx)), body.is_end_stream()),
        };
        // Whoever reads a body of known length does not come back for its end.
        if ended || !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            match std::mem::replace(&mut self.0, Inner::Ended) {
                Inner::H1(body) if !matches!(frame, Some(Err(_))) => body.complete(),
                Inner::H2(body) if !matches!(frame, Some(Err(_))) => body.complete(),
                _ => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Ended => SizeHint::with_exact(0),
            Inner::H1(body) => body.size_hint(),
            Inner::H2(body) => body.size_hint(),
        }
    }
}
