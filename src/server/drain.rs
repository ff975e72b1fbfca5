//! Draining: how a connection learns that it should finish what it does and close.
//!
//! A drain has two stages. When it starts, connections are asked to go: which of them, and when, is for each to decide
//! ([`Drain::should_close`] at the next response, [`Drain::due`] for those that have none). At its end, if it has one,
//! what is left is ended by dropping its task ([`Drain::wait_end`]).

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use slab::Slab;

use super::ServerContext;
use crate::{cli::DrainStrategy, net::Deadline};

/// The part of the drain time after which every response of an HTTP connection is its last, and idle ones go one by one.
/// Before, the probability rises.
pub const HTTP_RAMP: f64 = 2.0 / 3.0;

const STARTED: u8 = 1;
const ENDED: u8 = 2;

/// The side that starts a drain.
#[derive(Debug, Default)]
pub struct DrainSignal(Arc<Shared>);

/// The side that is told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    shared: Arc<Shared>,
    /// `drain_type: MODIFY_ONLY`: a failed health check does not concern it.
    modify_only: bool,
}

#[derive(Debug, Default)]
struct Shared {
    stage: AtomicU8,
    since: OnceLock<Instant>,
    reason: OnceLock<&'static str>,
    /// Who waits for the start, and who for the end.
    waiting: [Mutex<Slab<Waker>>; 2],
}

impl Shared {
    fn waiting(&self, stage: u8) -> MutexGuard<'_, Slab<Waker>> {
        let [start, end] = &self.waiting;
        let slab = if stage == STARTED { start } else { end };
        slab.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self, stage: u8) -> bool {
        self.stage.load(Ordering::Acquire) >= stage
    }

    fn reach(&self, stage: u8) {
        let mut waiting = self.waiting(stage);
        self.stage.fetch_max(stage, Ordering::AcqRel);
        let wakers = std::mem::take(&mut *waiting);
        drop(waiting);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl DrainSignal {
    /// Starts the drain; a second call has no effect.
    pub fn start(&self) {
        self.start_at(Instant::now());
    }

    /// Starts a drain that others of the same time belong to; a second call has no effect.
    pub fn start_at(&self, since: Instant) {
        if self.0.since.set(since).is_ok() {
            self.0.reach(STARTED);
        }
    }

    /// Ends what is left, for this reason (`%DOWNSTREAM_LOCAL_CLOSE_REASON%`).
    pub fn end(&self, reason: &'static str) {
        self.start();
        if self.0.reason.set(reason).is_ok() {
            self.0.reach(ENDED);
        }
    }

    /// A handle to be told by.
    pub fn listen(&self) -> Drain {
        Drain {
            shared: self.0.clone(),
            modify_only: false,
        }
    }
}

impl Drain {
    /// With `drain_type` of the listener: `MODIFY_ONLY` is not concerned by `/healthcheck/fail`.
    pub fn modify_only(self, modify_only: bool) -> Self {
        Self { modify_only, ..self }
    }

    /// Whether the drain has started.
    pub fn started(&self) -> bool {
        self.shared.reached(STARTED)
    }

    /// Why it has ended, if it has.
    pub fn ended(&self) -> Option<&'static str> {
        self.shared.reason.get().copied()
    }

    /// Waits for the drain to start; for ever when the signal is dropped without it.
    ///
    /// Connections poll this each time they are woken for something else, so only the first poll takes the lock.
    pub fn wait(&self) -> Wait<'_> {
        self.wait_for(STARTED)
    }

    /// Waits for the end of the drain: the connection is to be cut then.
    pub fn wait_end(&self) -> Wait<'_> {
        self.wait_for(ENDED)
    }

    fn wait_for(&self, stage: u8) -> Wait<'_> {
        Wait {
            shared: &self.shared,
            stage,
            place: None,
        }
    }

    /// Whether a connection that could be closed now should be: always while the health check is failed
    /// (`/healthcheck/fail`) and with `--drain-strategy immediate`, else with a probability that rises with the whole
    /// seconds since the start and is 1 at `ramp` times `--drain-time-s`.
    pub fn should_close(&self, server: &ServerContext, ramp: f64) -> bool {
        if !self.modify_only && server.health_failed.load(Ordering::Relaxed) {
            return true;
        }
        if !self.started() {
            return false;
        }
        let Some(since) = self.shared.since.get() else {
            return false;
        };
        match server.drain_strategy {
            DrainStrategy::Immediate => true,
            DrainStrategy::Gradual => {
                let over = server.drain_time.mul_f64(ramp.clamp(0.0, 1.0));
                let over = over.as_secs() + u64::from(over.subsec_nanos() > 0);
                let elapsed = since.elapsed().as_secs();
                elapsed >= over || elapsed > fastrand::u64(..over)
            }
        }
    }

    /// Waits until a connection that has had no occasion to close should begin to: at a random time between
    /// [`HTTP_RAMP`] of the drain time and the last moment that leaves it `grace`. For ever when the drain time is too
    /// short for that: then it ends with the drain.
    pub async fn due(&self, server: &ServerContext, grace: Duration) {
        self.wait().await;
        let since = self.shared.since.get();
        let delay = since.and_then(|since| delay(since.elapsed(), server.drain_time, grace));
        match delay {
            Some(delay) => Deadline::after(delay).await,
            None => std::future::pending().await,
        }
    }
}

/// How long from now on; `elapsed` since the drain started.
fn delay(elapsed: Duration, drain_time: Duration, grace: Duration) -> Option<Duration> {
    let first = drain_time.mul_f64(HTTP_RAMP);
    let last = drain_time.checked_sub(grace)?;
    // Whoever came so late goes with its first response.
    if first >= last || elapsed >= first {
        return None;
    }
    Some(first + (last - first).mul_f64(fastrand::f64()) - elapsed)
}

/// See [`Drain::wait`].
#[derive(Debug)]
pub struct Wait<'a> {
    shared: &'a Shared,
    stage: u8,
    /// The waker that is to be called, and where it is kept.
    place: Option<(usize, Waker)>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.shared.reached(this.stage) {
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
        let mut waiting = this.shared.waiting(this.stage);
        // It may have been reached since: then the wakers are taken, and no later one is called.
        if this.shared.reached(this.stage) {
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
            self.shared.waiting(self.stage).try_remove(key);
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
                    let drain = signal.listen();
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
            let drain = signal.listen();
            let waited = tokio::time::timeout(Duration::from_millis(1), drain.wait()).await;
            assert!(waited.is_err());
            assert!(signal.0.waiting(STARTED).is_empty());
            signal.start();
            assert!(drain.started());
            drain.wait().await;
        });
    }

    #[test]
    fn the_end_comes_after_the_start_and_tells_why() {
        run(async {
            let signal = DrainSignal::default();
            let drain = signal.listen();
            let end = tokio::spawn({
                let drain = drain.clone();
                async move { drain.wait_end().await }
            });
            tokio::task::yield_now().await;
            signal.start();
            assert!(drain.started());
            assert_eq!(drain.ended(), None);
            signal.end("gone");
            signal.end("gone twice");
            end.await.unwrap();
            assert_eq!(drain.ended(), Some("gone"));
        });
    }

    #[test]
    fn idle_connections_go_in_the_last_third() {
        let seconds = Duration::from_secs;
        for _ in 0..100 {
            let due = delay(seconds(1), seconds(600), seconds(5)).unwrap();
            assert!((seconds(399)..seconds(594)).contains(&due), "{due:?}");
        }
        // No room for the grace, and too late.
        assert_eq!(delay(seconds(0), seconds(6), seconds(5)), None);
        assert_eq!(delay(seconds(400), seconds(600), seconds(5)), None);
    }
}
