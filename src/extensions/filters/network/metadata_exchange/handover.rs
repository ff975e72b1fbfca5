//! What is found out within a byte stream, which has to be `Send`, on its way to the filter state of the connection.
//! The bytes behind it wait until it is there, so that whoever reads them finds the peer known.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::{
    extensions::common::workload::FoundPeer,
    http::{ConnectionInfo, stream_info::FindingSlot},
};

/// Nothing is told yet.
const WAITING: u8 = 0;
/// The slot is set, and nobody has taken it over.
const TOLD: u8 = 1;
/// It was.
const TAKEN: u8 = 2;

/// Between the stream and the connection. Both are on one thread; atomics stand where it would need none.
#[derive(Default)]
pub(super) struct Handover {
    slot: FindingSlot,
    state: AtomicU8,
    reader: AtomicWaker,
    taker: AtomicWaker,
}

impl Handover {
    /// The stream's side: tells what it found out.
    pub fn tell(&self, found: FoundPeer) {
        self.slot.set(found);
        self.state.store(TOLD, Ordering::Release);
        self.taker.wake();
    }

    /// The stream's side: waits until what was told is taken over; at once when nothing was.
    pub fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        self.reader.register(cx.waker());
        match self.state.load(Ordering::Acquire) {
            WAITING | TAKEN => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// The connection's side: takes over what is told. Never ends, for its end would be the connection's.
    pub async fn take(&self, info: &ConnectionInfo) {
        poll_fn(|cx| {
            self.taker.register(cx.waker());
            if self.state.load(Ordering::Acquire) == TOLD {
                if let Some(found) = self.slot.get() {
                    found.leave(&mut info.filter_state.borrow_mut());
                }
                self.state.store(TAKEN, Ordering::Release);
                self.reader.wake();
            }
            Poll::Pending
        })
        .await
    }
}
