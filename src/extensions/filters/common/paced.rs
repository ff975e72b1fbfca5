//! A body whose bytes go on as somebody allows: limits of bandwidth, rates of responses.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::http::{Body, BodyError};

/// Who says how fast a body goes.
pub trait Pace: Unpin {
    /// Bytes came.
    fn came(&mut self, _: usize) {}

    /// How many of `wanted` bytes may go now, and how long to wait before the others are asked for again.
    fn allow(&mut self, wanted: usize) -> (usize, Option<Duration>);

    /// A wait is over that took so long.
    fn waited(&mut self, _: Duration) {}

    /// The body has ended; its trailers, which may be changed.
    fn ended(&mut self, trailers: Option<HeaderMap>) -> Option<HeaderMap> {
        trailers
    }

    /// Whether trailers may follow that the body does not have.
    fn adds_trailers(&self) -> bool {
        false
    }
}

/// Hands on a body's bytes at a pace. It reads on only when all it has is handed on, so a slow reader costs no memory.
/// Trailers come after the bytes, without delay.
pub struct Paced<P> {
    inner: Body,
    pace: P,
    held: Bytes,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    ended: bool,
}

impl<P: Pace> Paced<P> {
    /// `inner` at this pace.
    pub fn new(inner: Body, pace: P) -> Self {
        Self {
            inner,
            pace,
            held: Bytes::new(),
            timer: None,
            ended: false,
        }
    }
}

impl<P: Pace> HttpBody for Paced<P> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if let Some((since, timer)) = &mut this.timer {
                std::task::ready!(timer.as_mut().poll(cx));
                this.pace.waited(since.elapsed());
                this.timer = None;
            }
            if this.held.is_empty() {
                let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)).transpose()?;
                match frame.map(Frame::into_data) {
                    Some(Ok(data)) => {
                        this.pace.came(data.len());
                        this.held = data;
                        continue;
                    }
                    end => {
                        this.ended = true;
                        let trailers = end.and_then(|frame| frame.err()?.into_trailers().ok());
                        return Poll::Ready(this.pace.ended(trailers).map(|t| Ok(Frame::trailers(t))));
                    }
                }
            }
            let (len, wait) = this.pace.allow(this.held.len());
            if let Some(wait) = wait {
                this.timer = Some((Instant::now(), Box::pin(tokio::time::sleep(wait))));
            }
            if len > 0 {
                return Poll::Ready(Some(Ok(Frame::data(this.held.split_to(len)))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || !self.pace.adds_trailers() && self.held.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let held = self.held.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}
