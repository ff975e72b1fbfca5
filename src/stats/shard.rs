//! Which shard the current thread writes to, and values that are split over shards.
//!
//! Worker `i` writes to shard `i`; every other thread (control, admin, blocking pool) writes to the last one. A
//! worker is the only writer of its shard, so it adds with a plain load and store: a locked instruction costs 15 ns
//! where these cost less than one, and a request counts some fifty things.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    static SOLE_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// Makes the current thread the one writer of shard `index`: worker `i` calls it once with `i` when it starts. All
/// other threads share the last shard and call nothing.
pub fn enter_shard(index: usize) {
    SHARD.set(index);
    SOLE_WRITER.set(true);
}

/// Adds to a value of the current thread's shard. A reset that comes at the same moment may be lost.
#[inline]
pub(super) fn add(value: &AtomicU64, n: u64) {
    if SOLE_WRITER.get() {
        value.store(value.load(Relaxed).wrapping_add(n), Relaxed);
    } else {
        value.fetch_add(n, Relaxed);
    }
}

/// The shard index of the current thread; `usize::MAX` where none was entered.
pub fn current_shard() -> usize {
    SHARD.get()
}

/// One `T` per shard, each allocated when its thread first touches it.
pub(super) struct Sharded<T> {
    shards: Box<[OnceLock<Box<T>>]>,
}

impl<T: Default> Sharded<T> {
    /// `count` shards, at least one.
    pub(super) fn new(count: usize) -> Self {
        Self {
            shards: (0..count.max(1)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The current thread's shard.
    #[inline]
    pub(super) fn local(&self) -> &T {
        let index = SHARD.get().min(self.shards.len() - 1);
        self.shards[index].get_or_init(Box::default)
    }

    /// A shard by its index, for values that are another process's.
    pub(super) fn at(&self, index: usize) -> &T {
        self.shards[index.min(self.shards.len() - 1)].get_or_init(Box::default)
    }

    /// A shard by its index, if somebody touched it.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.shards
            .get(index)
            .and_then(|shard| shard.get())
            .map(|boxed| &**boxed)
    }

    /// The shards that somebody touched.
    pub(super) fn touched(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().filter_map(|shard| shard.get().map(|boxed| &**boxed))
    }

    /// Whether nobody touched any of them.
    pub(super) fn is_untouched(&self) -> bool {
        self.shards.iter().all(|shard| shard.get().is_none())
    }
}
