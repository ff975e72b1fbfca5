//! `reset_high_memory_stream`: streams sorted by what they hold, so that the largest can be reset first.
//!
//! The account of a stream stands in one of eight classes by its size; class 0 starts at `2^minimum` bytes, and each
//! is twice the one before. A worker has its own streams; when the action's level rises, it resets those of the
//! highest classes, as many classes as the level says, fifty streams at a time.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use slab::Slab;

use crate::stats::Counter;

/// Classes of streams.
const CLASSES: usize = 8;
/// Streams that are reset at a time, by each worker.
const AT_ONCE: usize = 50;

/// The size from which on streams are looked at.
pub struct MemoryClasses {
    minimum: u32,
    reset: Counter,
}

impl MemoryClasses {
    /// `buffer_factory_config.minimum_account_to_track_power_of_two`
    pub(super) fn new(minimum: u32, reset: Counter) -> Self {
        Self { minimum, reset }
    }

    /// The class of a stream of this size; none when it is too small.
    fn class(&self, bytes: u64) -> Option<usize> {
        let power = bytes.checked_ilog2()?;
        let class = power.checked_sub(self.minimum)?;
        Some((class as usize).min(CLASSES - 1))
    }
}

thread_local! {
    /// The accounts of this worker.
    static ACCOUNTS: RefCell<Slab<Weak<Account>>> = const { RefCell::new(Slab::new()) };
}

/// What a stream holds, and whether it is to be reset.
pub struct Account {
    bytes: Cell<u64>,
    reset: Cell<bool>,
    waker: Cell<Option<Waker>>,
    key: Cell<usize>,
}

impl Account {
    /// The account of a stream of this worker.
    pub fn open() -> Rc<Self> {
        let account = Rc::new(Self {
            bytes: Cell::new(0),
            reset: Cell::new(false),
            waker: Cell::default(),
            key: Cell::new(usize::MAX),
        });
        let key = ACCOUNTS.with_borrow_mut(|all| all.insert(Rc::downgrade(&account)));
        account.key.set(key);
        account
    }

    /// Bytes that the stream holds now.
    pub fn set(&self, bytes: u64) {
        self.bytes.set(bytes);
    }

    /// Ready when the stream is to be reset.
    pub fn poll_reset(&self, cx: &Context<'_>) -> Poll<()> {
        if self.reset.get() {
            return Poll::Ready(());
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // While a thread ends the accounts may be gone before the streams.
        let _ = ACCOUNTS.try_with(|all| all.borrow_mut().try_remove(self.key.get()));
    }
}

/// Resets the largest streams of this worker.
pub fn reset(classes: &MemoryClasses, level: f32) {
    let cleared = ((level * CLASSES as f32) as usize + 1).min(CLASSES);
    let from = CLASSES - cleared;
    let mut found: Vec<(usize, Rc<Account>)> = ACCOUNTS.with_borrow(|all| {
        let all = all.iter().filter_map(|(_, account)| account.upgrade());
        all.filter_map(|account| Some((classes.class(account.bytes.get())?, account)))
            .filter(|(class, _)| *class >= from)
            .collect()
    });
    found.sort_by_key(|(class, _)| std::cmp::Reverse(*class));
    found.truncate(AT_ONCE);
    for (_, account) in found {
        classes.reset.inc();
        account.reset.set(true);
        if let Some(waker) = account.waker.take() {
            waker.wake();
        }
    }
}
