//! Reading from a connection, so that one that waits holds no buffer.

use std::{
    cell::Cell,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Heads are read into one buffer of the thread and copied from there.
const SCRATCH: usize = 16 * 1024;

/// Sizes of reads of a body: the first, and the largest after reads that filled theirs.
pub(super) const BODY_READ: usize = 16 * 1024;
const BODY_READ_MAX: usize = 128 * 1024;

/// A body is read into what is left of its buffer while that is as much as this.
const BODY_READ_MIN: usize = 4 * 1024;

thread_local! {
    static SCRATCH_BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Reads what there is through the thread's buffer.
pub(in crate::http::codec) fn read_ahead<S: AsyncRead + Unpin>(
    stream: &mut S,
    inbound: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut scratch = SCRATCH_BUFFER.take().unwrap_or_else(|| vec![0; SCRATCH].into());
    let mut room = ReadBuf::new(&mut scratch);
    let polled = Pin::new(stream).poll_read(cx, &mut room);
    let n = room.filled().len();
    inbound.extend_from_slice(room.filled());
    SCRATCH_BUFFER.set(Some(scratch));
    polled.map_ok(|()| n)
}

/// Reads a body's bytes straight into the buffer that its frames are cut from. `left`: so many are to come; `size` is
/// how much is read at once, which grows with a body that keeps coming.
pub(super) fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    inbound: &mut BytesMut,
    left: Option<u64>,
    size: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let wanted = left
        .and_then(|left| usize::try_from(left).ok())
        .map_or(*size, |left| left.min(*size));
    if inbound.capacity() - inbound.len() < wanted.min(BODY_READ_MIN) {
        inbound.reserve(wanted);
    }
    let room = inbound.capacity() - inbound.len();
    let polled = pin!(stream.read_buf(inbound)).poll(cx);
    match &polled {
        Poll::Pending if inbound.is_empty() => *inbound = BytesMut::new(),
        Poll::Ready(Ok(n)) if *n == room => *size = (*size * 2).min(BODY_READ_MAX),
        _ => {}
    }
    polled
}
