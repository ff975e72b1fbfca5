//! The body of a request: pulled from the connection by whoever reads it, which is all the back-pressure there is.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::wire::{self, Shared};
use crate::http::BodyError;

/// A request's body as it comes in. Dropped before its end, the connection ends with the response.
pub struct RequestBody {
    wire: Shared,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(wire: Shared) -> Self {
        Self { wire, ended: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let step = ready!(this.wire.borrow_mut().poll_body(cx));
        match step {
            Ok(step) => {
                let frame = wire::frame(step);
                this.ended = this.wire.borrow().is_request_done();
                Poll::Ready(frame.map(Ok))
            }
            Err(wire::BodyBroken) => {
                this.ended = true;
                Poll::Ready(Some(Err(BodyError::Reset("downstream"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        match self.wire.borrow().body_left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.wire.borrow_mut().drop_body();
    }
}
