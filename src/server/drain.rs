//! Draining: how a connection learns that it should finish what it does and close.
//!
//! A drain is a wish, not an order: a connection that holds a [`Drain`] ends when it is idle or at its
//! next response. What must end is ended by dropping its task, after the drain time.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use slab::Slab;

/// The side that starts a drain.
#[derive(Debug, Default)]
pub struct DrainSignal(Arc<Shared>);

/// The side that is told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    started: AtomicBool,
    waiting: Mutex<Slab<Waker>>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }
}

impl DrainSignal {
    /// Starts the drain; a second call has no effect.
    pub fn start(&self) {
        let mut waiting = self.0.waiting();
        self.0.started.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut *waiting);
        drop(waiting);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// A handle to be told by.
    pub fn listen(&self) -> Drain {
        Drain(self.0.clone())
    }
}

impl Drain {
    /// Whether the drain has started.
    pub fn started(&self) -> bool {
        self.0.started()
    }

    /// Waits for the drain to start; for ever when the signal is dropped without it.
    ///
    /// Connections poll this each time they are woken for something else, so only the first poll takes the lock.
    pub fn wait(&mut self) -> Wait<'_> {
        Wait {
            shared: &self.0,
            place: None,
        }
    }
}

/// See [`Drain::wait`].
#[derive(Debug)]
pub struct Wait<'a> {
    shared: &'a Shared,
    /// The waker that is to be called, and where it is kept.
    place: Option<(usize, Waker)>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.shared.started() {
            return Poll::Ready(());
        }
        if this
            .place
            .as_ref()
            .is_some_and(|(_, waker)| waker.will_wake(cx.waker()))
        {
            return Poll::Pending;
        }
        let waker = cx.waker().clone();
        let mut waiting = this.shared.waiting();
        // The drain may have started since: its start has taken the wakers, and calls no later one.
        if this.shared.started() {
            return Poll::Ready(());
        }
        let key = match this.place.take() {
            Some((key, _)) => {
                waiting[key] = waker.clone();
                key
            }
            None => waiting.insert(waker.clone()),
        };
        this.place = Some((key, waker));
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some((key, _)) = self.place {
            // After the start there is nothing to take back.
            self.shared.waiting().try_remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn those_who_wait_and_those_who_come_late_are_told() {
        run(async {
            let signal = DrainSignal::default();
            let mut waiting: Vec<_> = (0..3)
                .map(|_| {
                    let mut drain = signal.listen();
                    tokio::spawn(async move { drain.wait().await })
                })
                .collect();
            tokio::task::yield_now().await;
            std::thread::spawn(move || {
                signal.start();
                signal
            })
            .join()
            .unwrap();
            for task in waiting.drain(..) {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing() {
        run(async {
            let signal = DrainSignal::default();
            let mut drain = signal.listen();
            let waited = tokio::time::timeout(Duration::from_millis(1), drain.wait()).await;
            assert!(waited.is_err());
            assert!(signal.0.waiting().is_empty());
            signal.start();
            assert!(drain.started());
            drain.wait().await;
        });
    }
}
