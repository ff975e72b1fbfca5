//! The client's side before there is an upstream: what it sends by then is kept, as far as `max_early_data_bytes` goes.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::config::TcpProxyStats;
use crate::net::Stream;

/// So much is read at once.
const PART: usize = 16 * 1024;

/// What a client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    /// It sent something.
    Send,
    /// It said that it is done.
    End,
    /// It is gone.
    Leave,
}

/// A client that waits for its upstream.
pub(super) struct Client {
    pub(super) stream: Stream,
    /// None: its bytes wait in the socket.
    limit: Option<usize>,
    pub(super) early: Vec<u8>,
    pub(super) ended: bool,
}

impl Client {
    pub(super) fn new(stream: Stream, limit: Option<usize>) -> Self {
        Self {
            stream,
            limit,
            early: Vec::new(),
            ended: false,
        }
    }

    /// Waits for what it does next; for ever, when nobody is to know yet.
    pub(super) async fn does(&mut self, stats: &TcpProxyStats) -> Did {
        poll_fn(|cx| self.poll(cx, stats)).await
    }

    /// Keeps what it sends, until it is gone.
    pub(super) async fn leaves(&mut self, stats: &TcpProxyStats) {
        while self.does(stats).await != Did::Leave {}
    }

    fn poll(&mut self, cx: &mut Context<'_>, stats: &TcpProxyStats) -> Poll<Did> {
        // With a limit of nothing the first bytes are still taken: they are what is waited for.
        let full = |limit: usize| !self.early.is_empty() && self.early.len() >= limit;
        if self.ended || self.limit.is_none_or(full) {
            return Poll::Pending;
        }
        let before = self.early.len();
        if !ready!(self.read(cx)) {
            return Poll::Ready(Did::Leave);
        }
        // What is there already counts as one.
        while !self.ended && self.limit.is_some_and(|limit| self.early.len() < limit) {
            match self.read(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(Did::Leave),
                Poll::Pending => break,
            }
        }
        stats.early_data_received_count_total.inc();
        Poll::Ready(match self.early.len() > before {
            true => Did::Send,
            false => Did::End,
        })
    }

    /// Reads once. False: the client is gone.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut part = vec![0; PART];
        let mut room = ReadBuf::new(&mut part);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room));
        self.early.extend_from_slice(room.filled());
        self.ended = room.filled().is_empty();
        Poll::Ready(read.is_ok())
    }
}
