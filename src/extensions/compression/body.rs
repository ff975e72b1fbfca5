//! A body that is turned into another one on its way.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::{Body, BodyError};

/// What a body is turned into.
pub trait Transform: 'static {
    /// The bytes that stand for these.
    fn data(&mut self, data: &Bytes) -> Result<Vec<u8>, BodyError>;

    /// The last bytes.
    fn finish(&mut self) -> Result<Vec<u8>, BodyError> {
        Ok(Vec::new())
    }

    /// The trailers after them.
    fn trailers(&mut self, trailers: Option<HeaderMap>) -> Option<HeaderMap> {
        trailers
    }
}

/// `body` as `transform` makes it; its length is not known beforehand.
pub fn transformed(body: Body, transform: impl Transform) -> Body {
    Body::boxed(Transformed {
        inner: body,
        transform,
        ended: false,
        trailers: None,
    })
}

struct Transformed<T> {
    inner: Body,
    transform: T,
    /// The inner body is at its end; `trailers` are what is left.
    ended: bool,
    trailers: Option<HeaderMap>,
}

// The inner body is `Unpin`, and the transform is never pinned.
impl<T> Unpin for Transformed<T> {}

impl<T: Transform> HttpBody for Transformed<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(this.trailers.take().map(|t| Ok(Frame::trailers(t))));
            }
            let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)).transpose()?;
            let out = match frame.map(Frame::into_data) {
                Some(Ok(data)) => this.transform.data(&data)?,
                end => {
                    let trailers = end.and_then(|frame| frame.err()?.into_trailers().ok());
                    this.ended = true;
                    let out = this.transform.finish()?;
                    this.trailers = this.transform.trailers(trailers);
                    out
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
