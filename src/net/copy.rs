//! Copying bytes both ways between two connections.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Deadline, Stream};

/// Buffers grow with what is read at once, so that ten thousand quiet connections stay small and one busy
/// connection moves much per system call.
const SIZES: [usize; 3] = [4 * 1024, 32 * 1024, 256 * 1024];

/// Counts and activity of a copy, readable while it runs.
#[derive(Debug)]
pub struct CopyProgress {
    /// Bytes from the first stream to the second.
    pub forward: Cell<u64>,
    /// Bytes from the second stream to the first.
    pub back: Cell<u64>,
    last: Cell<Instant>,
}

impl Default for CopyProgress {
    fn default() -> Self {
        Self {
            forward: Cell::new(0),
            back: Cell::new(0),
            last: Cell::new(Instant::now()),
        }
    }
}

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyEnd {
    /// Both sides said that they are done.
    Finished,
    /// The first stream broke.
    FirstFailed,
    /// The second stream broke.
    SecondFailed,
    /// Nothing moved for the idle time.
    Idle,
}

/// Who ended an upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstToEnd {
    /// The first stream: it said that it is done, or broke.
    First,
    /// The second stream.
    Second,
    /// The second stream broke.
    SecondFailed,
    /// Neither: nothing moved for the idle time.
    Idle,
}

/// What ends the copying of an upgraded connection, besides streams that break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// One stream has ended.
    Either,
    /// Both have.
    Both,
    /// The second has; the first may listen on when it is done.
    Second,
}

/// Copies until enough has ended, or nothing moves for `idle`. Returns the bytes of each direction.
pub async fn copy_both_ways(
    mut a: Stream,
    mut b: Stream,
    idle: Option<Duration>,
    until: Until,
) -> (u64, u64, FirstToEnd) {
    let progress = CopyProgress::default();
    let (mut forward, mut back) = (OneWay::new(), OneWay::new());
    let mut first = None;
    let copying = poll_fn(|cx| {
        let there = forward.poll(cx, &mut a, &mut b, &progress.forward, &progress.last);
        let here = back.poll(cx, &mut b, &mut a, &progress.back, &progress.last);
        let broken = match (&there, &here) {
            (Poll::Ready(Err(Side::Read)), _) | (_, Poll::Ready(Err(Side::Write))) => Some(FirstToEnd::First),
            (Poll::Ready(Err(Side::Write)), _) | (_, Poll::Ready(Err(Side::Read))) => Some(FirstToEnd::SecondFailed),
            _ => None,
        };
        if let (Until::Second, Some(broken)) = (until, broken) {
            return Poll::Ready(broken);
        }
        let first = *first.get_or_insert(match (forward.ended, back.ended) {
            (true, _) => FirstToEnd::First,
            (_, true) => FirstToEnd::Second,
            _ => match broken {
                Some(broken) => broken,
                None => return Poll::Pending,
            },
        });
        let done = match until {
            Until::Both => there.is_ready() && here.is_ready(),
            Until::Either => there.is_ready() || here.is_ready(),
            Until::Second if here.is_ready() => return Poll::Ready(FirstToEnd::Second),
            Until::Second => false,
        };
        match broken.is_some() || done {
            true => Poll::Ready(first),
            false => Poll::Pending,
        }
    });
    let first = tokio::select! {
        biased;
        first = copying => first,
        () = idle_for(idle, &progress.last) => FirstToEnd::Idle,
    };
    (progress.forward.get(), progress.back.get(), first)
}

/// Copies until both sides have ended, one breaks, or nothing moves for `idle`.
pub async fn copy(mut a: Stream, mut b: Stream, idle: Option<Duration>, progress: &CopyProgress) -> CopyEnd {
    progress.last.set(Instant::now());
    let (mut forward, mut back) = (OneWay::new(), OneWay::new());
    let both = poll_fn(|cx| {
        let there = forward.poll(cx, &mut a, &mut b, &progress.forward, &progress.last);
        if let Poll::Ready(Err(side)) = there {
            return Poll::Ready(match side {
                Side::Read => CopyEnd::FirstFailed,
                Side::Write => CopyEnd::SecondFailed,
            });
        }
        match back.poll(cx, &mut b, &mut a, &progress.back, &progress.last) {
            Poll::Ready(Err(Side::Read)) => Poll::Ready(CopyEnd::SecondFailed),
            Poll::Ready(Err(Side::Write)) => Poll::Ready(CopyEnd::FirstFailed),
            Poll::Ready(Ok(())) if there.is_ready() => Poll::Ready(CopyEnd::Finished),
            _ => Poll::Pending,
        }
    });
    tokio::select! {
        biased;
        end = both => end,
        () = idle_for(idle, &progress.last) => CopyEnd::Idle,
    }
}

enum Side {
    Read,
    Write,
}

/// One direction: what was read and is not yet written. Polled by hand, because halves that own the streams would
/// take a lock for each call.
struct OneWay {
    buffer: Vec<u8>,
    step: usize,
    waiting: Range<usize>,
    ended: bool,
    closed: bool,
}

impl OneWay {
    fn new() -> Self {
        Self {
            buffer: vec![0; SIZES[0]],
            step: 0,
            waiting: 0..0,
            ended: false,
            closed: false,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        count: &Cell<u64>,
        last: &Cell<Instant>,
    ) -> Poll<Result<(), Side>> {
        loop {
            while !self.waiting.is_empty() {
                let bytes = self.buffer.get(self.waiting.clone()).unwrap_or_default();
                match ready!(Pin::new(&mut *to).poll_write(cx, bytes)) {
                    Ok(n) if n > 0 => {
                        self.waiting.start += n;
                        count.set(count.get() + n as u64);
                    }
                    _ => return Poll::Ready(Err(Side::Write)),
                }
            }
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                // Half-close goes on; the other direction may still have something to say.
                let _: io::Result<()> = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.closed = true;
                continue;
            }
            let mut room = ReadBuf::new(&mut self.buffer);
            let read = Pin::new(&mut *from).poll_read(cx, &mut room).map_err(|_| Side::Read);
            let n = room.filled().len();
            match read {
                // What TLS has taken but not sent would wait for ever.
                Poll::Pending => {
                    let _ = Pin::new(&mut *to).poll_flush(cx).map_err(|_| Side::Write)?;
                    return Poll::Pending;
                }
                Poll::Ready(read) => read?,
            }
            last.set(Instant::now());
            self.waiting = 0..n;
            self.ended = n == 0;
            if n == self.buffer.len() && self.step + 1 < SIZES.len() {
                self.step += 1;
                self.buffer.resize(SIZES[self.step], 0);
            }
        }
    }
}

async fn idle_for(idle: Option<Duration>, last: &Cell<Instant>) {
    let Some(idle) = idle else {
        return std::future::pending().await;
    };
    loop {
        let due = last.get() + idle;
        if due <= Instant::now() {
            return;
        }
        Deadline::at(due).await;
    }
}
