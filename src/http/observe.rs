//! Looking at a body on its way: its bytes, and its trailers, which may be changed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Body, BodyError};

/// What looks at a body. It lives as long as the body does.
pub trait Observer: 'static {
    /// Bytes, as they pass.
    fn data(&mut self, _data: &Bytes) {}

    /// The trailers, if there are some, at the end.
    fn trailers(&mut self, _trailers: &mut HeaderMap) {}
}

/// `body`, seen by `observer`.
pub fn observe(body: Body, observer: impl Observer) -> Body {
    match body {
        Body::Empty => Body::Empty,
        inner => Body::boxed(Observed { inner, observer }),
    }
}

/// `body`, with `change` run on its trailers if it has some.
pub fn map_trailers(body: Body, change: impl FnOnce(&mut HeaderMap) + 'static) -> Body {
    observe(body, MapTrailers(Some(change)))
}

struct MapTrailers<F>(Option<F>);

impl<F: FnOnce(&mut HeaderMap) + 'static> Observer for MapTrailers<F> {
    fn trailers(&mut self, trailers: &mut HeaderMap) {
        if let Some(change) = self.0.take() {
            change(trailers);
        }
    }
}

struct Observed<O> {
    inner: Body,
    observer: O,
}

// The inner body is `Unpin`, and the observer is never pinned.
impl<O> Unpin for Observed<O> {}

impl<O: Observer> HttpBody for Observed<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame {
            if let Some(data) = frame.data_ref() {
                this.observer.data(data);
            } else if let Some(trailers) = frame.trailers_mut() {
                this.observer.trailers(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
