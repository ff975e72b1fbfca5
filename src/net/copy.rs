//! Copying bytes both ways between two connections.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Stream;

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

/// Copies until both sides have ended, one breaks, or nothing moves for `idle`. Returns the bytes of
/// each direction.
pub async fn copy_both_ways(a: Stream, b: Stream, idle: Option<Duration>) -> (u64, u64) {
    let progress = CopyProgress::default();
    copy(a, b, idle, &progress).await;
    (progress.forward.get(), progress.back.get())
}

/// Like [`copy_both_ways`], with its progress to look at.
pub async fn copy(a: Stream, b: Stream, idle: Option<Duration>, progress: &CopyProgress) -> CopyEnd {
    progress.last.set(Instant::now());
    let (mut a_read, mut a_write) = tokio::io::split(a);
    let (mut b_read, mut b_write) = tokio::io::split(b);
    let forward = one_way(&mut a_read, &mut b_write, &progress.forward, &progress.last);
    let back = one_way(&mut b_read, &mut a_write, &progress.back, &progress.last);
    tokio::select! {
        biased;
        end = async {
            let (forward, back) = tokio::join!(
                async { forward.await.map_err(|side| match side { Side::Read => CopyEnd::FirstFailed, Side::Write => CopyEnd::SecondFailed }) },
                async { back.await.map_err(|side| match side { Side::Read => CopyEnd::SecondFailed, Side::Write => CopyEnd::FirstFailed }) },
            );
            forward.and(back).err().unwrap_or(CopyEnd::Finished)
        } => end,
        () = idle_for(idle, &progress.last) => CopyEnd::Idle,
    }
}

enum Side {
    Read,
    Write,
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &Cell<u64>,
    last: &Cell<Instant>,
) -> Result<(), Side> {
    let mut step = 0;
    let mut buffer = vec![0_u8; SIZES[step]];
    loop {
        let n = from.read(&mut buffer).await.map_err(|_| Side::Read)?;
        last.set(Instant::now());
        if n == 0 {
            // Half-close goes on; the other direction may still have something to say.
            let _: io::Result<()> = to.shutdown().await;
            return Ok(());
        }
        to.write_all(buffer.get(..n).unwrap_or_default())
            .await
            .map_err(|_| Side::Write)?;
        count.set(count.get() + n as u64);
        if n == buffer.len() && step + 1 < SIZES.len() {
            step += 1;
            buffer = vec![0_u8; SIZES[step]];
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
        tokio::time::sleep_until(due.into()).await;
    }
}
