//! The timers of a connection: how long it may be idle, and how old it may grow.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use crate::{
    http::codec::{CloseReason, CodecOptions, Handler},
    net::Deadline,
    server::overload::ScaledTimer,
};

/// One deadline serves both: it is left to run out early rather than moved with each stream.
pub(super) struct Timers<'a, H> {
    options: &'a CodecOptions,
    handler: &'a H,
    started: Instant,
    armed: Option<(Instant, Deadline)>,
}

impl<'a, H: Handler> Timers<'a, H> {
    pub(super) fn new(options: &'a CodecOptions, handler: &'a H) -> Self {
        Self {
            options,
            handler,
            started: Instant::now(),
            armed: None,
        }
    }

    /// Ready when the connection has to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let Some((due, reason)) = self.next() else {
                return Poll::Pending;
            };
            if let Some((at, deadline)) = &mut self.armed
                && *at <= due
            {
                ready!(Pin::new(deadline).poll(cx));
                self.armed = None;
                continue;
            }
            if due <= Instant::now() {
                return Poll::Ready(reason);
            }
            self.armed = Some((due, Deadline::at(due)));
        }
    }

    fn next(&self) -> Option<(Instant, CloseReason)> {
        let since = match self.handler.active_streams() {
            0 => self.handler.idle_since(),
            _ => Instant::now(),
        };
        let scaled = |timer, full| self.handler.scaled(timer, full);
        let idle = self.options.idle_timeout;
        let idle = idle.map(|limit| scaled(ScaledTimer::ConnectionIdle, limit));
        let idle = idle.and_then(|limit| since.checked_add(limit));
        let old = self.options.max_connection_duration;
        let old = old.map(|limit| scaled(ScaledTimer::ConnectionMax, limit));
        let old = old.and_then(|limit| self.started.checked_add(limit));
        let idle = idle.map(|at| (at, CloseReason::Idle));
        let old = old.map(|at| (at, CloseReason::MaxDuration));
        idle.into_iter().chain(old).min_by_key(|(at, _)| *at)
    }
}
