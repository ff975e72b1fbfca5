//! The timers of a connection: how long it may be idle, and how old it may grow.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use crate::{
    http::codec::{CloseReason, CodecOptions, Handler},
    net::Deadline,
};

/// One deadline serves both: it is left to run out early rather than moved with each stream.
pub(super) struct Timers<'a, H> {
    options: &'a CodecOptions,
    handler: &'a H,
    started: Instant,
    armed: Option<Deadline>,
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
            if let Some(deadline) = &mut self.armed {
                ready!(Pin::new(deadline).poll(cx));
                self.armed = None;
            }
            let Some((due, reason)) = self.next() else {
                return Poll::Pending;
            };
            if due <= Instant::now() {
                return Poll::Ready(reason);
            }
            self.armed = Some(Deadline::at(due));
        }
    }

    fn next(&self) -> Option<(Instant, CloseReason)> {
        let since = match self.handler.active_streams() {
            0 => self.handler.idle_since(),
            _ => Instant::now(),
        };
        let idle = self.options.idle_timeout.and_then(|limit| since.checked_add(limit));
        let old = self.options.max_connection_duration;
        let old = old.and_then(|limit| self.started.checked_add(limit));
        let idle = idle.map(|at| (at, CloseReason::Idle));
        let old = old.map(|at| (at, CloseReason::MaxDuration));
        idle.into_iter().chain(old).min_by_key(|(at, _)| *at)
    }
}
