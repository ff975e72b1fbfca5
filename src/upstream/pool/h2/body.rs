//! The body of a response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};

use super::stream::{Phase, StreamGuard};
use crate::{
    http::{BodyError, codec::http2::Http2Body},
    upstream::UpstreamFailure,
};

/// The body of a response; frees its stream at its end.
pub(in super::super) struct ResponseBody {
    incoming: Http2Body,
    stream: StreamGuard,
}

impl ResponseBody {
    pub(super) fn new(incoming: RecvStream, stream: StreamGuard) -> Self {
        Self {
            incoming: Http2Body::of_response(incoming),
            stream,
        }
    }

    /// The next part. After an error the stream counts as failed.
    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            self.stream.fail(UpstreamFailure::of_body(error));
        }
        Poll::Ready(frame)
    }

    /// The response is complete.
    pub(in super::super) fn complete(mut self) {
        self.stream.phase = Phase::Complete;
    }

    pub(in super::super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(in super::super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
