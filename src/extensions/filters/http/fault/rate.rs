//! A response body at a limited rate.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::http::{Body, BodyError};

/// Bytes go in slices of this length, as in Envoy.
const SLICE: Duration = Duration::from_millis(50);

/// Slices that may be saved up: a second's.
const MOST_SLICES: f64 = 20.0;

/// Hands on a body's bytes slice by slice. It reads on only when all it has is handed on, so a slow reader costs no
/// memory. Trailers come after the bytes, without delay.
pub(super) struct RateLimited {
    inner: Body,
    held: Bytes,
    slices: Slices,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RateLimited {
    /// `body` at so many KiB per second.
    pub fn new(body: Body, kib_per_second: u64) -> Self {
        Self {
            inner: body,
            held: Bytes::new(),
            slices: Slices::new(kib_per_second),
            timer: None,
        }
    }
}

/// What may go now.
#[derive(Debug)]
pub(super) struct Slices {
    /// Bytes that one slice may carry.
    length: f64,
    /// Slices that may go.
    saved: f64,
    /// When `saved` was right; none before the first byte, which has one slice.
    since: Option<Instant>,
}

impl Slices {
    /// For so many KiB per second.
    pub fn new(kib_per_second: u64) -> Self {
        Self {
            length: (kib_per_second as f64 * 1024.0 * SLICE.as_secs_f64()).max(1.0),
            saved: 1.0,
            since: None,
        }
    }

    /// How many of `wanted` bytes may go now; or how long to wait for the next slice.
    pub fn take(&mut self, wanted: usize, now: Instant) -> Result<usize, Duration> {
        let passed = self.since.map_or(0.0, |since| {
            now.duration_since(since).as_secs_f64() / SLICE.as_secs_f64()
        });
        self.since = Some(now);
        self.saved = (self.saved + passed).min(MOST_SLICES);
        // Whole slices only: a byte here and there would cost more than it carries.
        if self.saved < 1.0 {
            return Err(SLICE.mul_f64(1.0 - self.saved));
        }
        let len = wanted.min((self.saved.floor() * self.length) as usize);
        self.saved -= (len as f64 / self.length).ceil();
        Ok(len)
    }
}

impl HttpBody for RateLimited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(timer) = &mut this.timer {
                std::task::ready!(timer.as_mut().poll(cx));
                this.timer = None;
            }
            if this.held.is_empty() {
                match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => this.held = data,
                        Err(other) => return Poll::Ready(Some(Ok(other))),
                    },
                    other => return Poll::Ready(other),
                }
                continue;
            }
            match this.slices.take(this.held.len(), Instant::now()) {
                Ok(len) => return Poll::Ready(Some(Ok(Frame::data(this.held.split_to(len))))),
                Err(wait) => this.timer = Some(Box::pin(tokio::time::sleep(wait))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.inner.is_end_stream()
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
