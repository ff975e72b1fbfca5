//! The cells values live in: one atomic each, written as [`super::shard`] says.
//!
//! A cell belongs to one shard of a block or of a dynamic statistic; what a reader sees is the sum over the
//! shards (see [`super::shard`]).

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::shard::add;

/// A counter of one shard: only grows, 8 bytes.
#[derive(Debug, Default)]
pub struct CounterCell(AtomicU64);

impl CounterCell {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        add(&self.0, 1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        add(&self.0, n);
    }

    /// What this shard counted.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Back to zero (`/reset_counters`).
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    /// Replaces what was counted: for values of another process.
    pub(super) fn put(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

const USED: u8 = 1;
const WAS_SET: u8 = 2;

/// A gauge of one shard: a signed share of the sum, so that one worker may decrement what another incremented.
#[derive(Debug, Default)]
pub struct GaugeCell {
    value: AtomicU64,
    state: AtomicU8,
}

impl GaugeCell {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    #[inline]
    pub fn dec(&self) {
        self.sub(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.mark(USED);
        add(&self.value, n);
    }

    /// Takes `n` away.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.mark(USED);
        add(&self.value, n.wrapping_neg());
    }

    /// Replaces this shard's share. Meant for gauges that one thread owns (the control thread, as a rule):
    /// shards are summed, so two workers that both `set` are seen added up.
    #[inline]
    pub fn set(&self, value: u64) {
        self.mark(USED | WAS_SET);
        self.value.store(value, Relaxed);
    }

    /// The same for a share of another process's, which says nothing about how this one writes the gauge.
    pub(super) fn put(&self, value: u64) {
        self.mark(USED);
        self.value.store(value, Relaxed);
    }

    /// This shard's share.
    pub fn value(&self) -> u64 {
        self.value.load(Relaxed)
    }

    // A load before the store keeps the line shared in the common case that the mark is there already.
    #[inline]
    fn mark(&self, bits: u8) {
        if self.state.load(Relaxed) & bits != bits {
            self.state.fetch_or(bits, Relaxed);
        }
    }
}

/// A gauge as read: the sum over its shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GaugeValue {
    /// The sum.
    pub value: u64,
    /// Whether it was ever written, zero included (Envoy's `usedonly`: `server.state: 0` is used).
    pub used: bool,
}

impl GaugeValue {
    /// Sums the shards. A gauge that only knows increments and decrements can be seen below zero while a reader
    /// passes between two shards; that reads as zero. One that was `set` may hold any 64 bits (version hashes).
    pub(super) fn sum<'a>(cells: impl Iterator<Item = &'a GaugeCell>) -> Self {
        let (mut sum, mut state) = (0u64, 0u8);
        for cell in cells {
            sum = sum.wrapping_add(cell.value());
            state |= cell.state.load(Relaxed);
        }
        let negative = state & WAS_SET == 0 && (sum as i64) < 0;
        Self {
            value: if negative { 0 } else { sum },
            used: state & USED != 0,
        }
    }
}
