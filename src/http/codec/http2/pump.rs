//! Sending a body as fast as the peer's window allows.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as _;

use crate::{http::Body, net::Deadline};

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    /// All of it has gone out, as far as the window is concerned.
    Sent,
    /// The peer reset the stream, or has gone.
    Gone,
    /// The body broke off.
    Broken,
    /// The peer did not read.
    Stuck,
}

/// A body on its way. At most one of its frames waits for the window; while it does, the body is not polled.
pub struct Pump {
    waiting: Bytes,
    /// Nothing follows what waits.
    last: bool,
    stuck: Option<Deadline>,
    patience: Option<Duration>,
}

impl Pump {
    /// `patience`: how long the peer may keep its window shut.
    pub fn new(patience: Option<Duration>) -> Self {
        Self {
            waiting: Bytes::new(),
            last: false,
            stuck: None,
            patience,
        }
    }

    /// Bytes that wait for the window.
    pub fn held(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Sends what can be sent now.
    pub fn poll(&mut self, cx: &mut Context<'_>, send: &mut SendStream<Bytes>, body: &mut Body) -> Poll<Pumped> {
        loop {
            if !self.waiting.is_empty() {
                match ready!(self.poll_window(cx, send)) {
                    Some(end) => return Poll::Ready(end),
                    None => continue,
                }
            }
            if self.last {
                return Poll::Ready(Pumped::Sent);
            }
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                // Wakes when the peer resets the stream.
                return match send.poll_reset(cx) {
                    Poll::Ready(_) => Poll::Ready(Pumped::Gone),
                    Poll::Pending => Poll::Pending,
                };
            };
            let sent = match frame {
                None => {
                    self.last = true;
                    send.send_data(Bytes::new(), true)
                }
                Some(Err(_)) => return Poll::Ready(Pumped::Broken),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.last = body.is_end_stream();
                        match data.is_empty() {
                            true if self.last => send.send_data(data, true),
                            true => Ok(()),
                            false => {
                                send.reserve_capacity(data.len());
                                self.waiting = data;
                                Ok(())
                            }
                        }
                    }
                    Err(frame) => {
                        self.last = true;
                        match frame.into_trailers() {
                            Ok(trailers) if !trailers.is_empty() => send.send_trailers(trailers),
                            _ => send.send_data(Bytes::new(), true),
                        }
                    }
                },
            };
            if sent.is_err() {
                return Poll::Ready(Pumped::Gone);
            }
        }
    }

    /// Sends what the window has room for; none when all of it is out.
    fn poll_window(&mut self, cx: &mut Context<'_>, send: &mut SendStream<Bytes>) -> Poll<Option<Pumped>> {
        while !self.waiting.is_empty() {
            let room = send.capacity();
            if room > 0 {
                self.stuck = None;
                let part = self.waiting.split_to(room.min(self.waiting.len()));
                let ends = self.last && self.waiting.is_empty();
                if send.send_data(part, ends).is_err() {
                    return Poll::Ready(Some(Pumped::Gone));
                }
                continue;
            }
            match send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => continue,
                Poll::Ready(_) => return Poll::Ready(Some(Pumped::Gone)),
                Poll::Pending => {}
            }
            let Some(limit) = self.patience else {
                return Poll::Pending;
            };
            let stuck = self.stuck.get_or_insert_with(|| Deadline::after(limit));
            ready!(Pin::new(stuck).poll(cx));
            return Poll::Ready(Some(Pumped::Stuck));
        }
        Poll::Ready(None)
    }
}
