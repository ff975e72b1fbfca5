//! A reply in the middle of things: while the request's body is on its way, or the upstream's response is awaited.

use std::{
    cell::RefCell,
    task::{Poll, Waker},
};

use crate::http::LocalReply;

/// Where whoever looks at a request's body leaves a reply; the connection manager gives up the request for it. A reply
/// that comes after the response has begun is lost: who gives it has to break the body off instead.
#[derive(Debug, Default)]
pub struct Interrupt {
    reply: RefCell<Option<Box<LocalReply>>>,
    waker: RefCell<Option<Waker>>,
}

impl Interrupt {
    /// Replies; the first one counts.
    pub fn reply(&self, reply: LocalReply) {
        self.reply.borrow_mut().get_or_insert_with(|| Box::new(reply));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for a reply; for ever when nobody gives one.
    pub async fn wait(&self) -> Box<LocalReply> {
        std::future::poll_fn(|cx| match self.reply.take() {
            Some(reply) => Poll::Ready(reply),
            None => {
                let mut waker = self.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}
