//! `connection_keepalive`: PING frames, and the end of a connection whose peer does not answer them.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use h2::{Ping, PingPong};

use super::observe::Observer;
use crate::net::Deadline;

/// `KeepaliveSettings`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keepalive {
    /// `interval`; none when only `connection_idle_interval` asks for pings.
    pub interval: Option<Duration>,
    /// `timeout`
    pub timeout: Duration,
    /// `interval_jitter` in percent; default 15.
    pub jitter: f64,
    /// `connection_idle_interval`: a connection that was silent for so long is tried before its next stream.
    pub idle_interval: Option<Duration>,
}

enum State {
    /// Until the next ping; none when only idleness asks for one.
    Rests(Option<Deadline>),
    /// For the answer. Whatever else comes gives the peer the whole timeout again.
    Waits { limit: Deadline, frames: u64 },
}

/// The pings of one connection.
pub struct Pinger {
    config: Keepalive,
    pings: PingPong,
    state: State,
}

impl Pinger {
    /// Starts with the first interval.
    pub fn new(config: Keepalive, pings: PingPong) -> Self {
        Self {
            state: rest(&config),
            config,
            pings,
        }
    }

    /// Sends a ping now, unless one is on its way.
    pub fn ping(&mut self, seen: &Observer) {
        if let State::Rests(_) = self.state
            && self.pings.send_ping(Ping::opaque()).is_ok()
        {
            self.state = State::Waits {
                limit: Deadline::after(self.config.timeout),
                frames: seen.frames_read(),
            };
        }
    }

    /// The connection was silent for so long that its next stream is preceded by a ping.
    pub fn wants_ping(&self, last_read: Instant) -> bool {
        self.config
            .idle_interval
            .is_some_and(|limit| last_read.elapsed() > limit)
    }

    /// Ready when the peer does not answer.
    pub fn poll(&mut self, cx: &mut Context<'_>, seen: &Observer) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Rests(None) => return Poll::Pending,
                State::Rests(Some(next)) => {
                    ready!(Pin::new(next).poll(cx));
                    // Nothing to be pinged any more: the connection ends.
                    if self.pings.send_ping(Ping::opaque()).is_err() {
                        self.state = State::Rests(None);
                        continue;
                    }
                    self.state = State::Waits {
                        limit: Deadline::after(self.config.timeout),
                        frames: seen.frames_read(),
                    };
                }
                State::Waits { limit, frames } => {
                    match self.pings.poll_pong(cx) {
                        Poll::Ready(Ok(_)) => {
                            self.state = rest(&self.config);
                            continue;
                        }
                        Poll::Ready(Err(_)) => return Poll::Pending,
                        Poll::Pending => {}
                    }
                    ready!(Pin::new(&mut *limit).poll(cx));
                    let now = seen.frames_read();
                    if now == *frames {
                        return Poll::Ready(());
                    }
                    *frames = now;
                    *limit = Deadline::after(self.config.timeout);
                }
            }
        }
    }
}

fn rest(config: &Keepalive) -> State {
    State::Rests(config.interval.map(|interval| {
        let jitter = interval.mul_f64((config.jitter / 100.0).clamp(0.0, 1.0));
        Deadline::after(interval + jitter.mul_f64(fastrand::f64()))
    }))
}
