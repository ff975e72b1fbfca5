//! Timers for what hardly ever runs out: the timeouts of requests, the idle timers of connections.
//!
//! A tokio timer takes a lock to start, another to stop, and some locked instructions each time the task that
//! waits for it is polled. A request arms several and sees none of them fire. So a [`Deadline`] that is far away
//! only leaves a note on its thread, which a ticker reads four times a second; when it comes near, it turns into
//! a tokio timer and fires on time.

use std::{
    cell::RefCell,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::{Instant, Sleep},
};

/// How often the notes are read.
const TICK: Duration = Duration::from_millis(250);

/// From when on a deadline is a tokio timer: the ticker must not come too late for it.
const NEAR: Duration = Duration::from_millis(350);

struct Note {
    at: Instant,
    waker: Waker,
    near: bool,
}

#[derive(Default)]
struct Notes {
    notes: Slab<Note>,
    ticking: bool,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// A future that is ready at an instant. It stays on the thread that polls it first.
pub struct Deadline {
    at: Instant,
    state: State,
    not_send: PhantomData<*const ()>,
}

enum State {
    New,
    Far(usize),
    Near(Pin<Box<Sleep>>),
}

impl Deadline {
    /// Ready at `at`.
    pub fn at(at: std::time::Instant) -> Self {
        Self {
            at: at.into(),
            state: State::New,
            not_send: PhantomData,
        }
    }

    /// Ready after `time`.
    pub fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self {
            // What is too far to be told is a year away.
            at: now.checked_add(time).unwrap_or(now + Duration::from_secs(31_536_000)),
            state: State::New,
            not_send: PhantomData,
        }
    }

    fn start(&self, cx: &Context<'_>) -> State {
        // The notes belong to a thread, so the tasks must too.
        let near = self.at <= Instant::now() + NEAR;
        if near || Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            return State::Near(Box::pin(tokio::time::sleep_until(self.at)));
        }
        let (key, ticking) = NOTES.with_borrow_mut(|notes| {
            let key = notes.notes.insert(Note {
                at: self.at,
                waker: cx.waker().clone(),
                near: false,
            });
            (key, std::mem::replace(&mut notes.ticking, true))
        });
        if !ticking {
            // Outside the borrow: a runtime that ends drops the ticker at once.
            tokio::spawn(tick(Ticking));
        }
        State::Far(key)
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let State::New = this.state {
            this.state = this.start(cx);
        }
        if let State::Far(key) = this.state {
            let near = NOTES.with_borrow_mut(|notes| {
                let note = &mut notes.notes[key];
                if !note.near {
                    note.waker.clone_from(cx.waker());
                }
                note.near
            });
            if !near {
                return Poll::Pending;
            }
            this.forget();
            this.state = State::Near(Box::pin(tokio::time::sleep_until(this.at)));
        }
        match &mut this.state {
            State::Near(sleep) => sleep.as_mut().poll(cx),
            State::New | State::Far(_) => Poll::Pending,
        }
    }
}

impl Deadline {
    fn forget(&mut self) {
        if let State::Far(key) = std::mem::replace(&mut self.state, State::New) {
            // While a thread ends its notes may be gone before its tasks.
            let _ = NOTES.try_with(|notes| notes.borrow_mut().notes.remove(key));
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Wakes whoever waits for a deadline of this thread that is far away, to look at its timers again.
pub fn wake_deadlines() {
    let wakers: Vec<Waker> = NOTES.with_borrow(|notes| {
        let far = notes.notes.iter().filter(|(_, note)| !note.near);
        far.map(|(_, note)| note.waker.clone()).collect()
    });
    // Woken outside the borrow: a waker may do anything.
    wakers.into_iter().for_each(Waker::wake);
}

/// Lets the next deadline start a ticker, when this one ends with its work or with its runtime.
struct Ticking;

impl Drop for Ticking {
    fn drop(&mut self) {
        let _ = NOTES.try_with(|notes| notes.borrow_mut().ticking = false);
    }
}

async fn tick(_ticking: Ticking) {
    let mut due = Vec::new();
    loop {
        tokio::time::sleep(TICK).await;
        let limit = Instant::now() + NEAR;
        let idle = NOTES.with_borrow_mut(|notes| {
            for (_, note) in &mut notes.notes {
                if !note.near && note.at <= limit {
                    note.near = true;
                    due.push(note.waker.clone());
                }
            }
            notes.notes.is_empty()
        });
        // Woken outside the borrow: a waker may do anything.
        due.drain(..).for_each(Waker::wake);
        if idle {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
