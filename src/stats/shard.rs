//! Which shard the current thread writes to, and values that are split over shards.
//!
//! Worker `i` writes to shard `i`; every other thread (control, admin, blocking pool) writes to the last one. All
//! cells are atomics, so the split is about cache lines, never about correctness.

use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Makes the current thread write to shard `index`: worker `i` calls it once with `i` when it starts.
pub fn enter_shard(index: usize) {
    SHARD.with(|shard| shard.set(index));
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

    /// The shards that somebody touched.
    pub(super) fn touched(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().filter_map(|shard| shard.get().map(|boxed| &**boxed))
    }

    /// Whether nobody touched any of them.
    pub(super) fn is_untouched(&self) -> bool {
        self.shards.iter().all(|shard| shard.get().is_none())
    }
}
