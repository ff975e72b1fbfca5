//! A body under a limit that it shares with others.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::config::Config;
use crate::http::{Body, BodyError};

/// How long the bodies of a stream took, and how long they waited here.
#[derive(Debug, Default)]
pub(super) struct Delays {
    request: Cell<(Duration, Duration)>,
    response: Cell<(Duration, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// Hands on a body's bytes as the bucket allows. It reads on only when all it has is handed on.
pub(super) struct Limited {
    inner: Body,
    config: Arc<Config>,
    direction: Direction,
    delays: Rc<Delays>,
    held: Bytes,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When the first byte came, until the body is over.
    began: Option<Instant>,
    waited: Duration,
    ended: bool,
}

impl Limited {
    pub fn new(inner: Body, config: Arc<Config>, direction: Direction, delays: Rc<Delays>) -> Self {
        Self {
            inner,
            config,
            direction,
            delays,
            held: Bytes::new(),
            timer: None,
            began: None,
            waited: Duration::ZERO,
            ended: false,
        }
    }

    fn came(&mut self, len: u64) {
        let stats = self.config.stats.local();
        let (size, total, pending) = match self.direction {
            Direction::Request => (
                &stats.request_incoming_size,
                &stats.request_incoming_total_size,
                &stats.request_pending,
            ),
            Direction::Response => (
                &stats.response_incoming_size,
                &stats.response_incoming_total_size,
                &stats.response_pending,
            ),
        };
        size.set(len);
        total.add(len);
        if self.began.is_none() {
            self.began = Some(Instant::now());
            pending.inc();
        }
    }

    fn allowed(&self, len: u64) {
        let stats = self.config.stats.local();
        let (size, total) = match self.direction {
            Direction::Request => (&stats.request_allowed_size, &stats.request_allowed_total_size),
            Direction::Response => (&stats.response_allowed_size, &stats.response_allowed_total_size),
        };
        size.set(len);
        total.add(len);
    }

    fn enforced(&self) {
        let stats = self.config.stats.local();
        match self.direction {
            Direction::Request => stats.request_enforced.inc(),
            Direction::Response => stats.response_enforced.inc(),
        }
    }

    /// The body is over, or given up.
    fn over(&mut self) {
        let Some(began) = self.began.take() else { return };
        let took = began.elapsed();
        let stats = self.config.stats.local();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match self.direction {
            Direction::Request => {
                stats.request_pending.dec();
                stats.request_transfer_duration.record(millis);
                self.delays.request.set((took, self.waited));
            }
            Direction::Response => {
                stats.response_pending.dec();
                stats.response_transfer_duration.record(millis);
                self.delays.response.set((took, self.waited));
            }
        }
    }

    /// Adds what the delays were to the trailers of a response.
    fn trailers(&self, trailers: Option<HeaderMap>) -> Option<HeaderMap> {
        let (request, response) = (self.delays.request.get(), self.delays.response.get());
        let names = self.config.trailers.as_ref();
        let Some(names) = names.filter(|_| self.direction == Direction::Response) else {
            return trailers;
        };
        if request.0.as_millis() == 0 && response.0.as_millis() == 0 {
            return trailers;
        }
        let mut trailers = trailers.unwrap_or_default();
        for (name, delay) in [
            (&names.request, request.0),
            (&names.response, response.0),
            (&names.request_filter, request.1),
            (&names.response_filter, response.1),
        ] {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            trailers.insert(name, HeaderValue::from(millis));
        }
        Some(trailers)
    }
}

impl HttpBody for Limited {
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
                this.waited += since.elapsed();
                this.timer = None;
            }
            if this.held.is_empty() {
                let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)).transpose()?;
                match frame.map(Frame::into_data) {
                    Some(Ok(data)) => {
                        this.came(data.len() as u64);
                        this.held = data;
                        continue;
                    }
                    end => {
                        this.ended = true;
                        this.over();
                        let trailers = end.and_then(|frame| frame.err()?.into_trailers().ok());
                        return Poll::Ready(this.trailers(trailers).map(|t| Ok(Frame::trailers(t))));
                    }
                }
            }
            let len = this.config.bucket.take(this.held.len(), Instant::now());
            if len < this.held.len() {
                this.enforced();
                let timer = Box::pin(tokio::time::sleep(this.config.fill_interval));
                this.timer = Some((Instant::now(), timer));
            }
            if len > 0 {
                this.allowed(len as u64);
                return Poll::Ready(Some(Ok(Frame::data(this.held.split_to(len)))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let told = self.direction == Direction::Response && self.config.trailers.is_some();
        self.ended || !told && self.held.is_empty() && self.inner.is_end_stream()
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

impl Drop for Limited {
    fn drop(&mut self) {
        self.over();
    }
}
