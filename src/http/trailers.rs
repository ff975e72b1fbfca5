//! Changing trailers on their way, without touching the bytes before them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Body, BodyError};

/// `body`, with `change` run on its trailers if it has some.
pub fn map_trailers(body: Body, change: impl FnOnce(&mut HeaderMap) + 'static) -> Body {
    match body {
        Body::Empty | Body::Full(_) => body,
        inner => Body::boxed(MapTrailers {
            inner,
            change: Some(change),
        }),
    }
}

struct MapTrailers<F> {
    inner: Body,
    change: Option<F>,
}

// Nothing in it is ever pinned in place: the inner body is `Unpin`.
impl<F> Unpin for MapTrailers<F> {}

impl<F: FnOnce(&mut HeaderMap)> HttpBody for MapTrailers<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut()
                    && let Some(change) = this.change.take()
                {
                    change(trailers);
                }
                frame
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
