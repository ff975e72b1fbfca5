//! The body of a response, which frees its connection at its end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::lease::StreamGuard;
use crate::http::{Body, BodyError};

/// The body of a response. Counts are given back when it ends or is dropped, and the connection with them.
pub struct UpstreamBody(Option<(Incoming, StreamGuard)>);

impl UpstreamBody {
    /// A body without bytes; its connection is free already.
    pub(super) fn empty() -> Self {
        Self(None)
    }

    pub(super) fn new(incoming: Incoming, stream: StreamGuard) -> Self {
        Self(Some((incoming, stream)))
    }

    fn end(&mut self) {
        if let Some((_, mut stream)) = self.0.take() {
            stream.complete();
        }
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "UpstreamBody"
        } else {
            "UpstreamBody(ended)"
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
        let Some((incoming, stream)) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match frame {
            // Whoever reads a body of known length does not come back for its end.
            // HTTP/1 has no trailers unless `enable_trailers` says so.
            Some(Ok(frame)) if frame.is_trailers() && stream.drops_trailers() => {
                self.end();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if frame.is_trailers() || incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = BodyError::Codec(error);
                stream.failed(&error);
                self.0 = None;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |(incoming, _)| incoming.size_hint())
    }
}
