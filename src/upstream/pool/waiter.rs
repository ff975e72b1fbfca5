//! A request's place in the queue of a pool.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{Lease, core::Pool};
use crate::upstream::ConnectFailure;

type Outcome = Result<Lease, ConnectFailure>;

/// What the pool keeps of a waiting request.
#[derive(Default)]
pub(super) struct Waiter {
    outcome: RefCell<Option<Outcome>>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    /// Ends the wait. The waiter has left the queue.
    pub(super) fn resolve(&self, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// The waiting itself; dropping it leaves the queue.
pub(super) struct Waiting {
    pub(super) pool: Rc<Pool>,
    pub(super) waiter: Rc<Waiter>,
}

impl Future for Waiting {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.waiter.outcome.borrow_mut().take() {
            return Poll::Ready(outcome);
        }
        *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pool.cancel(&self.waiter);
    }
}
