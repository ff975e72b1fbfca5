//! Retry budgets: how many retries may be in flight, as a share of the requests.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::runtime::Snapshot;

/// `Thresholds.retry_budget`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// `budget_percent`, 20: of requests in flight and pending.
    pub percent: f64,
    /// `min_retry_concurrency`, 3
    pub min_concurrency: u64,
    /// `budget_interval`: requests count for so long from their start, instead of for as long as they are in flight.
    pub interval: Option<Duration>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20.0,
            min_concurrency: 3,
            interval: None,
        }
    }
}

/// A number that the runtime knows nothing of.
const UNKNOWN: u64 = u64::MAX;

/// A budget as configured and as the runtime wants it.
#[derive(Debug)]
pub struct Budget {
    configured: Option<RetryBudget>,
    /// Bits of a number of percent, or [`UNKNOWN`].
    percent: AtomicU64,
    /// Or [`UNKNOWN`].
    min_concurrency: AtomicU64,
    started: Option<Started>,
}

impl Budget {
    pub fn new(configured: Option<RetryBudget>) -> Self {
        Self {
            configured,
            percent: AtomicU64::new(UNKNOWN),
            min_concurrency: AtomicU64::new(UNKNOWN),
            started: configured.and_then(|b| b.interval).map(Started::new),
        }
    }

    /// Takes `circuit_breakers.<cluster>.<priority>.retry_budget.*`; either of them makes a budget where there is none.
    pub fn apply_runtime(&self, prefix: &str, snapshot: &Snapshot) {
        let entry = |name: &str| snapshot.get(&format!("{prefix}.retry_budget.{name}"));
        let percent = entry("budget_percent").and_then(|e| e.double);
        self.percent.store(percent.map_or(UNKNOWN, f64::to_bits), Relaxed);
        let min = entry("min_retry_concurrency").and_then(|e| e.integer);
        self.min_concurrency.store(min.unwrap_or(UNKNOWN), Relaxed);
    }

    /// How many retries may be in flight beside so many requests; none without a budget.
    pub fn max(&self, active: u64) -> Option<u64> {
        let known = |n: &AtomicU64| Some(n.load(Relaxed)).filter(|n| *n != UNKNOWN);
        let (percent, min) = (known(&self.percent), known(&self.min_concurrency));
        if self.configured.is_none() && percent.is_none() && min.is_none() {
            return None;
        }
        let budget = self.configured.unwrap_or_default();
        let percent = percent.map_or(budget.percent, f64::from_bits);
        let counted = self.started.as_ref().map_or(active, Started::count);
        // A share below one is none; negative percents cast to none as well.
        let share = (percent / 100.0 * counted as f64) as u64;
        Some(share.max(min.unwrap_or(budget.min_concurrency)))
    }

    /// A request starts.
    pub fn started(&self) {
        if let Some(started) = &self.started {
            started.add();
        }
    }
}

/// How finely an interval is cut: a request counts for at most a slice longer than it should.
const SLICES: u64 = 16;

/// The requests that started within the last interval, counted by slices of it. No lock: two workers that turn a slice
/// over at once may lose a request, which a budget can bear.
#[derive(Debug)]
struct Started {
    /// Microseconds.
    slice: u64,
    /// Each the number of a slice in its upper half, and the requests of it in its lower.
    counts: [AtomicU64; SLICES as usize + 1],
}

impl Started {
    fn new(interval: Duration) -> Self {
        let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        Self {
            slice: (micros / SLICES).max(1),
            counts: Default::default(),
        }
    }

    /// The number of the present slice.
    fn now(&self) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let micros = u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX);
        // From 1: an empty slot is of no slice.
        (micros / self.slice + 1) & u64::from(u32::MAX)
    }

    fn add(&self) {
        self.add_at(self.now());
    }

    fn add_at(&self, slice: u64) {
        let slot = &self.counts[(slice % self.counts.len() as u64) as usize];
        let _ = slot.fetch_update(Relaxed, Relaxed, |old| {
            Some(match old >> 32 == slice {
                true => old + 1,
                false => slice << 32 | 1,
            })
        });
    }

    fn count(&self) -> u64 {
        self.count_at(self.now())
    }

    fn count_at(&self, now: u64) -> u64 {
        let counts = self.counts.iter().map(|c| c.load(Relaxed));
        counts
            .filter(|c| (1..=now).contains(&(c >> 32)) && now - (c >> 32) <= SLICES)
            .map(|c| c & u64::from(u32::MAX))
            .sum()
    }
}

#[cfg(test)]
mod tests;
