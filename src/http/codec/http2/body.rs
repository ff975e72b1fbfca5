//! The body of a message: its window opens as it is read, which is all the back-pressure there is.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};

use crate::http::BodyError;

/// The body of a message as it comes in.
pub struct Http2Body {
    stream: RecvStream,
    data_ended: bool,
    ended: bool,
    /// Set when it was read to its end.
    done: Rc<Cell<bool>>,
}

impl Http2Body {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            data_ended: false,
            ended: false,
            done: Rc::default(),
        }
    }

    /// Set once the body was read to its end.
    pub(crate) fn done(&self) -> Rc<Cell<bool>> {
        self.done.clone()
    }

    fn end(&mut self) {
        self.ended = true;
        self.done.set(true);
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while !this.ended && !this.data_ended {
            match ready!(this.stream.poll_data(cx)) {
                // A frame of padding, or END_STREAM alone.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // Fails only for a stream that is over.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    if this.stream.is_end_stream() {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(BodyError::Http2(error))));
                }
                None => this.data_ended = true,
            }
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        Poll::Ready(match trailers {
            Ok(trailers) => {
                this.end();
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(error) => {
                this.ended = true;
                Some(Err(BodyError::Http2(error)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
