//! A body under a limit that it shares with others.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue};

use super::config::Config;
use crate::extensions::filters::common::paced::Pace;

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

/// The pace of one direction of a stream.
pub(super) struct Limit {
    config: Arc<Config>,
    direction: Direction,
    delays: Rc<Delays>,
    /// When the first byte came, until the body is over.
    began: Option<Instant>,
    waited: Duration,
}

impl Limit {
    pub fn new(config: Arc<Config>, direction: Direction, delays: Rc<Delays>) -> Self {
        Self {
            config,
            direction,
            delays,
            began: None,
            waited: Duration::ZERO,
        }
    }

    fn count(&mut self, len: u64) {
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

impl Pace for Limit {
    fn came(&mut self, len: usize) {
        self.count(len as u64);
    }

    fn allow(&mut self, wanted: usize) -> (usize, Option<Duration>) {
        let len = self.config.bucket.take(wanted, Instant::now());
        let more = len < wanted;
        if more {
            self.enforced();
        }
        if len > 0 {
            self.allowed(len as u64);
        }
        (len, more.then_some(self.config.fill_interval))
    }

    fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    fn ended(&mut self, trailers: Option<HeaderMap>) -> Option<HeaderMap> {
        self.over();
        self.trailers(trailers)
    }

    fn adds_trailers(&self) -> bool {
        self.direction == Direction::Response && self.config.trailers.is_some()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.over();
    }
}
