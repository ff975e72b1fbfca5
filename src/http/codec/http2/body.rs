//! The body of a message: its window opens as it is read, which is all the back-pressure there is.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};

use super::{
    request::{self, Refused},
    stats::Http2CodecStats,
};
use crate::{
    http::{BodyError, codec::H1Options},
    stats::Stats,
};

/// The body of a message as it comes in.
pub struct Http2Body(Rc<Incoming>);

/// A body, and what its stream knows of it.
pub(crate) struct Incoming {
    /// None once the stream is over, whoever still holds the body.
    stream: RefCell<Option<RecvStream>>,
    data_ended: Cell<bool>,
    /// Read to its end.
    done: Cell<bool>,
    /// Let go of before its end.
    left: Cell<bool>,
    /// Limits of a request's trailers.
    limits: Option<(H1Options, Stats<Http2CodecStats>)>,
    refused: Cell<Option<Refused>>,
    waker: RefCell<Option<Waker>>,
}

impl Http2Body {
    /// The body of a request, whose trailers have limits.
    pub(super) fn of_request(stream: RecvStream, options: &H1Options, stats: &Stats<Http2CodecStats>) -> Self {
        Self(Rc::new(Incoming::new(stream, Some((options.clone(), stats.clone())))))
    }

    /// The body of a response.
    pub(crate) fn of_response(stream: RecvStream) -> Self {
        Self(Rc::new(Incoming::new(stream, None)))
    }

    /// What its stream needs.
    pub(super) fn incoming(&self) -> Rc<Incoming> {
        self.0.clone()
    }
}

impl Incoming {
    fn new(stream: RecvStream, limits: Option<(H1Options, Stats<Http2CodecStats>)>) -> Self {
        Self {
            stream: RefCell::new(Some(stream)),
            data_ended: Cell::new(false),
            done: Cell::new(false),
            left: Cell::new(false),
            limits,
            refused: Cell::new(None),
            waker: RefCell::default(),
        }
    }

    /// Lets go of what was not read; whether there is such.
    pub(super) fn close(&self) -> bool {
        let stream = self.stream.borrow_mut().take();
        self.left.get() || stream.is_some_and(|stream| !stream.is_end_stream()) && !self.done.get()
    }

    /// Ready when the trailers are refused.
    pub(super) fn poll_refused(&self, cx: &mut Context<'_>) -> Poll<Refused> {
        if let Some(refused) = self.refused.get() {
            return Poll::Ready(refused);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut slot = self.stream.borrow_mut();
        let Some(stream) = slot.as_mut().filter(|_| !self.done.get()) else {
            // Let go of before its end: nobody waits for it.
            return match self.done.get() {
                true => Poll::Ready(None),
                false => Poll::Ready(Some(Err(BodyError::Reset("downstream")))),
            };
        };
        while !self.data_ended.get() {
            match ready!(stream.poll_data(cx)) {
                // A frame of padding, or END_STREAM alone.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // Fails only for a stream that is over.
                    let _ = stream.flow_control().release_capacity(data.len());
                    self.done.set(stream.is_end_stream());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    *slot = None;
                    return Poll::Ready(Some(Err(BodyError::Http2(error))));
                }
                None => self.data_ended.set(true),
            }
        }
        let trailers = ready!(stream.poll_trailers(cx));
        Poll::Ready(match trailers {
            Ok(None) => {
                self.done.set(true);
                None
            }
            Ok(Some(mut trailers)) => {
                if let Some((options, stats)) = &self.limits {
                    match request::trailers(&mut trailers, options) {
                        Ok(dropped) => stats.local().dropped_headers_with_underscores.add(dropped),
                        Err(refused) => {
                            refused.count(stats.local());
                            self.refused.set(Some(refused));
                            if let Some(waker) = self.waker.borrow_mut().take() {
                                waker.wake();
                            }
                            // The stream is about to be reset.
                            return Poll::Pending;
                        }
                    }
                }
                self.done.set(true);
                (!trailers.is_empty()).then_some(Ok(Frame::trailers(trailers)))
            }
            Err(error) => {
                *slot = None;
                Some(Err(BodyError::Http2(error)))
            }
        })
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.done.get() || self.0.stream.borrow().as_ref().is_some_and(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        // What comes now interests nobody: the library drops it.
        let left = self.0.close();
        self.0.left.set(left);
    }
}
