//! The timers of a connection that waits for a request. None of them runs while one is being answered.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{CodecError, NoHead, Stop};
use crate::{
    http::codec::{CloseReason, CodecOptions, Handler},
    net::Deadline,
    server::overload::ScaledTimer,
};

/// One deadline serves them all: it is left to run out early rather than moved with each request.
pub(super) struct Timers<'a, H> {
    handler: &'a H,
    options: &'a CodecOptions,
    started: Instant,
    idle_since: Instant,
    /// When the first byte of a head came whose end is still missing.
    head_since: Option<Instant>,
    armed: Option<(Instant, Deadline)>,
}

impl<'a, H: Handler> Timers<'a, H> {
    pub(super) fn new(options: &'a CodecOptions, handler: &'a H) -> Self {
        let now = Instant::now();
        Self {
            options,
            handler,
            started: now,
            idle_since: now,
            head_since: None,
            armed: None,
        }
    }

    /// The next head came, or will not.
    pub(super) fn head_ended(&mut self) {
        self.head_since = None;
    }

    /// A response is out.
    pub(super) fn request_ended(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Whether there was a request.
    pub(super) fn had_request(&self) -> bool {
        self.idle_since != self.started
    }

    /// Ready when the connection has waited for long enough; `partial` when a part of a head is there.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, partial: bool) -> Poll<Stop> {
        loop {
            let Some((due, stop)) = self.next(partial) else {
                return Poll::Pending;
            };
            if let Some((at, deadline)) = &mut self.armed
                && *at <= due
            {
                std::task::ready!(Pin::new(deadline).poll(cx));
                self.armed = None;
            }
            if due <= Instant::now() {
                return Poll::Ready(stop);
            }
            self.armed.get_or_insert_with(|| (due, Deadline::at(due)));
            if self.armed.as_ref().is_some_and(|(at, _)| *at > due) {
                self.armed = Some((due, Deadline::at(due)));
            }
        }
    }

    fn next(&mut self, partial: bool) -> Option<(Instant, Stop)> {
        if !partial {
            let scaled = |timer, full| self.handler.scaled(timer, full);
            let idle = self.options.idle_timeout;
            let idle = idle.map(|d| scaled(ScaledTimer::ConnectionIdle, d));
            let idle = idle.and_then(|d| self.idle_since.checked_add(d));
            // A connection that is safe waits for its next request, whose response says that it closes.
            let old = self
                .options
                .max_connection_duration
                .filter(|_| !self.options.safe_max_duration)
                .map(|d| scaled(ScaledTimer::ConnectionMax, d))
                .and_then(|d| self.started.checked_add(d));
            let idle = idle.map(|at| (at, CloseReason::Idle));
            let old = old.map(|at| (at, CloseReason::MaxDuration));
            let first = idle.into_iter().chain(old).min_by_key(|(at, _)| *at);
            return first.map(|(at, reason)| (at, Stop::Close(reason)));
        }
        let since = *self.head_since.get_or_insert_with(Instant::now);
        let timeout = |limit: Option<Duration>, error| Some((since.checked_add(limit?)?, error));
        let head = timeout(self.options.headers_timeout, CodecError::HeadersTimeout);
        let idle = self.options.stream_idle_timeout;
        let idle = idle.map(|d| self.handler.scaled(ScaledTimer::StreamIdle, d));
        let idle = timeout(idle, CodecError::StreamIdle);
        let (at, error) = head.into_iter().chain(idle).min_by_key(|(at, _)| *at)?;
        Some((at, Stop::NoHead(NoHead::Refused(error))))
    }
}
