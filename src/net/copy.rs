//! Copying bytes both ways between two connections.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Deadline, Stream};

/// How much is read at once.
const SCRATCH: usize = 256 * 1024;

thread_local! {
    /// What one read of this thread goes into, before it is written on at once. Connections share it, so that ten
    /// thousand quiet ones have no buffer at all and a busy one moves much per system call.
    static SHARED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The buffer of this thread while it is used; none is found there meanwhile, which a copy within a copy would replace.
struct Scratch(Vec<u8>);

impl Scratch {
    fn take() -> Self {
        let mut buffer = SHARED.take();
        buffer.resize(SCRATCH, 0);
        Self(buffer)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SHARED.set(std::mem::take(&mut self.0));
    }
}

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
    let (mut forward, mut back) = (OneWay::default(), OneWay::default());
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
    let (mut forward, mut back) = (OneWay::default(), OneWay::default());
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
#[derive(Default)]
struct OneWay {
    /// What the writing side did not take yet: the rest of one read, empty most of the time.
    kept: Vec<u8>,
    /// How much of it is written.
    written: usize,
    ended: bool,
    closed: bool,
}

impl OneWay {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        count: &Cell<u64>,
        last: &Cell<Instant>,
    ) -> Poll<Result<(), Side>> {
        if !self.kept.is_empty() {
            let rest = self.kept.get(self.written..).unwrap_or_default();
            self.written += write(cx, to, rest, count)?;
            if self.written < self.kept.len() {
                return Poll::Pending;
            }
            (self.kept, self.written) = (Vec::new(), 0);
        }
        let mut scratch = None;
        while !self.ended {
            let buffer = &mut scratch.get_or_insert_with(Scratch::take).0;
            let mut room = ReadBuf::new(buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut room).map_err(|_| Side::Read) {
                // What TLS has taken but not sent would wait for ever.
                Poll::Pending => {
                    let _ = Pin::new(&mut *to).poll_flush(cx).map_err(|_| Side::Write)?;
                    return Poll::Pending;
                }
                Poll::Ready(read) => read?,
            }
            last.set(Instant::now());
            let read = room.filled();
            self.ended = read.is_empty();
            let n = write(cx, to, read, count)?;
            if n < read.len() {
                self.kept = read.get(n..).unwrap_or_default().to_vec();
                return Poll::Pending;
            }
        }
        if !self.closed {
            // Half-close goes on; the other direction may still have something to say.
            let _: io::Result<()> = ready!(Pin::new(&mut *to).poll_shutdown(cx));
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes until everything is taken or the peer does not take more now; how much it took.
fn write(cx: &mut Context<'_>, to: &mut Stream, bytes: &[u8], count: &Cell<u64>) -> Result<usize, Side> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match Pin::new(&mut *to).poll_write(cx, rest) {
            Poll::Ready(Ok(n)) if n > 0 => {
                written += n;
                count.set(count.get() + n as u64);
            }
            Poll::Ready(_) => return Err(Side::Write),
            Poll::Pending => break,
        }
    }
    Ok(written)
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
