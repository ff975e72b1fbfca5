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

impl CopyProgress {
    /// When a byte last moved.
    pub fn last(&self) -> Instant {
        self.last.get()
    }

    /// Counts as activity.
    pub fn touch(&self) {
        self.last.set(Instant::now());
    }
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
    Finished {
        /// The second side was done first.
        second_first: bool,
    },
    /// The first stream broke.
    FirstFailed(io::ErrorKind),
    /// The second stream broke.
    SecondFailed(io::ErrorKind),
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
            (Poll::Ready(Err(Broke::Reading(_))), _) | (_, Poll::Ready(Err(Broke::Writing(_)))) => {
                Some(FirstToEnd::First)
            }
            (Poll::Ready(Err(Broke::Writing(_))), _) | (_, Poll::Ready(Err(Broke::Reading(_)))) => {
                Some(FirstToEnd::SecondFailed)
            }
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

/// Two streams whose bytes are copied to one another. What one of them did not take yet can be sent on when the other
/// has ended.
pub struct Copying {
    a: Stream,
    b: Stream,
    forward: OneWay,
    back: OneWay,
}

impl Copying {
    /// Copies between `a` and `b`.
    pub fn new(a: Stream, b: Stream) -> Self {
        Self {
            a,
            b,
            forward: OneWay::default(),
            back: OneWay::default(),
        }
    }

    /// What was read of `a` before there was `b`, and whether that was all of it.
    pub fn with_early(mut self, bytes: Vec<u8>, ended: bool) -> Self {
        self.forward = OneWay {
            kept: bytes,
            ended,
            ..OneWay::default()
        };
        self
    }

    /// Copies until both sides have ended, or one breaks.
    pub async fn run(&mut self, progress: &CopyProgress) -> CopyEnd {
        progress.touch();
        let Self { a, b, forward, back } = self;
        let mut second_first = None;
        poll_fn(|cx| {
            let there = forward.poll(cx, a, b, &progress.forward, &progress.last);
            match there {
                Poll::Ready(Ok(())) => {
                    second_first.get_or_insert(false);
                }
                Poll::Ready(Err(Broke::Reading(error))) => return Poll::Ready(CopyEnd::FirstFailed(error)),
                Poll::Ready(Err(Broke::Writing(error))) => return Poll::Ready(CopyEnd::SecondFailed(error)),
                Poll::Pending => {}
            }
            match back.poll(cx, b, a, &progress.back, &progress.last) {
                Poll::Ready(Err(Broke::Reading(error))) => Poll::Ready(CopyEnd::SecondFailed(error)),
                Poll::Ready(Err(Broke::Writing(error))) => Poll::Ready(CopyEnd::FirstFailed(error)),
                Poll::Ready(Ok(())) => {
                    let second_first = *second_first.get_or_insert(true);
                    match there {
                        Poll::Ready(_) => Poll::Ready(CopyEnd::Finished { second_first }),
                        Poll::Pending => Poll::Pending,
                    }
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// How many bytes the second stream did not take yet.
    pub fn left_for_second(&self) -> usize {
        self.forward.kept.len() - self.forward.written
    }

    /// The first stream, to say how it is closed.
    pub fn first(&self) -> &Stream {
        &self.a
    }

    /// The second stream, with the bytes it did not take yet; the first one is dropped.
    pub fn into_second(self) -> Rest {
        Rest {
            stream: self.b,
            waiting: self.forward.written..self.forward.kept.len(),
            bytes: self.forward.kept,
        }
    }

    /// The first stream, with the bytes it did not take yet; the second one is dropped.
    pub fn into_first(self) -> Rest {
        Rest {
            stream: self.a,
            waiting: self.back.written..self.back.kept.len(),
            bytes: self.back.kept,
        }
    }
}

/// A stream whose other side is gone, and bytes for it.
pub struct Rest {
    stream: Stream,
    bytes: Vec<u8>,
    waiting: Range<usize>,
}

impl Rest {
    /// Sends the bytes and the end, as long as the stream takes some within each `idle`; gives up when it has something
    /// to say, which nobody would hear, if `deaf`. Returns how many bytes were sent, and whether the time ran out.
    pub async fn flush(mut self, idle: Option<Duration>, deaf: bool) -> (u64, bool) {
        let progress = CopyProgress::default();
        let sending = poll_fn(|cx| {
            let mut byte = [0];
            let mut room = ReadBuf::new(&mut byte);
            if deaf && Pin::new(&mut self.stream).poll_read(cx, &mut room).is_ready() && !room.filled().is_empty() {
                return Poll::Ready(());
            }
            while !self.waiting.is_empty() {
                let bytes = self.bytes.get(self.waiting.clone()).unwrap_or_default();
                match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
                    Ok(n) if n > 0 => {
                        self.waiting.start += n;
                        progress.forward.set(progress.forward.get() + n as u64);
                        progress.touch();
                    }
                    _ => return Poll::Ready(()),
                }
            }
            Pin::new(&mut self.stream).poll_shutdown(cx).map(|_| ())
        });
        let timed_out = tokio::select! {
            biased;
            () = sending => false,
            () = idle_for(idle, &progress.last) => true,
        };
        (progress.forward.get(), timed_out)
    }
}

enum Broke {
    Reading(io::ErrorKind),
    Writing(io::ErrorKind),
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
    ) -> Poll<Result<(), Broke>> {
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
            match Pin::new(&mut *from).poll_read(cx, &mut room) {
                // What TLS has taken but not sent would wait for ever.
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = Pin::new(&mut *to).poll_flush(cx) {
                        return Poll::Ready(Err(Broke::Writing(error.kind())));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(read) => read.map_err(|error| Broke::Reading(error.kind()))?,
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
fn write(cx: &mut Context<'_>, to: &mut Stream, bytes: &[u8], count: &Cell<u64>) -> Result<usize, Broke> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match Pin::new(&mut *to).poll_write(cx, rest) {
            Poll::Ready(Ok(n)) if n > 0 => {
                written += n;
                count.set(count.get() + n as u64);
            }
            Poll::Ready(Ok(_)) => return Err(Broke::Writing(io::ErrorKind::WriteZero)),
            Poll::Ready(Err(error)) => return Err(Broke::Writing(error.kind())),
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

#[cfg(test)]
mod tests;
