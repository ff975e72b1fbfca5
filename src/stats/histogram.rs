//! Histograms with the bins of circllhist, the log-linear histogram that Envoy uses: 90 bins a decade, so that
//! quantiles and bucket counts come out as Envoy prints them.
//!
//! [`HistogramCell`] is what one shard records into; [`Bins`] is what a reader merges out of the shards, and what
//! [`Summary`] computes quantiles, bucket counts and the (approximate, as in Envoy) sum from.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

use super::shard::add;

/// The unit of a histogram's values (Envoy's `Stats::Histogram::Unit`). Only `Percent` changes how it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// No unit.
    Unspecified,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds, Envoy's usual one.
    Milliseconds,
    /// Fractions recorded as `fraction * PERCENT_SCALE` and read back as fractions.
    Percent,
}

/// What a fraction is multiplied with before it is recorded into a [`Unit::Percent`] histogram.
pub const PERCENT_SCALE: u64 = 1_000_000;

impl Unit {
    fn scale(self) -> f64 {
        if self == Unit::Percent {
            PERCENT_SCALE as f64
        } else {
            1.0
        }
    }
}

/// A `u64` has at most 20 decimal digits.
const DECADES: usize = 20;
const BINS_PER_DECADE: usize = 90;

type Decade = [AtomicU64; BINS_PER_DECADE];

#[derive(Default)]
struct CellBins {
    zero: AtomicU64,
    decades: [OnceLock<Box<Decade>>; DECADES],
}

impl CellBins {
    #[inline]
    fn record(&self, value: u64) {
        let counter = match bin_of(value) {
            None => &self.zero,
            Some((decade, bin)) => {
                let decade = self.decades[decade].get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
                &decade[bin]
            }
        };
        add(counter, 1);
    }
}

/// How many bins are kept one by one.
const FEW: usize = 4;

/// The first bins that values fall into. A slot is taken in order and never given back.
#[derive(Default)]
struct FewBins {
    /// 1 + the number of the bin; 0 while free.
    bins: [AtomicU16; FEW],
    counts: [AtomicU64; FEW],
}

impl FewBins {
    /// Whether there was room for it.
    fn record(&self, value: u64) -> bool {
        let key = 1 + bin_of(value).map_or(0, |(decade, bin)| (1 + decade * BINS_PER_DECADE + bin) as u16);
        for (bin, count) in self.bins.iter().zip(&self.counts) {
            let mut found = bin.load(Relaxed);
            if found == 0 {
                // Another thread of the shared shard may be faster, perhaps with the same bin.
                found = bin
                    .compare_exchange(0, key, Relaxed, Relaxed)
                    .map_or_else(|theirs| theirs, |_| key);
            }
            if found == key {
                add(count, 1);
                return true;
            }
        }
        false
    }
}

/// A histogram of one shard. Many are used a few times in their life (how long a cluster's update took): the first few
/// bins take 48 bytes; from then on it is 720 bytes for each decade seen.
#[derive(Default)]
pub struct HistogramCell {
    few: OnceLock<Box<FewBins>>,
    all: OnceLock<Box<CellBins>>,
}

impl HistogramCell {
    /// Records one value, in the histogram's unit.
    #[inline]
    pub fn record(&self, value: u64) {
        match self.all.get() {
            Some(bins) => bins.record(value),
            None if self.few.get_or_init(Box::default).record(value) => {}
            None => self.all.get_or_init(Box::default).record(value),
        }
    }

    /// Whether something was recorded here.
    pub(super) fn used(&self) -> bool {
        self.few.get().is_some()
    }

    /// Adds what this shard recorded to `into`.
    pub(super) fn merge_into(&self, into: &mut Bins) {
        if let Some(few) = self.few.get() {
            for (bin, count) in few.bins.iter().zip(&few.counts) {
                into.add(bin.load(Relaxed).saturating_sub(1), count.load(Relaxed));
            }
        }
        let Some(bins) = self.all.get() else { return };
        into.add(0, bins.zero.load(Relaxed));
        for (index, decade) in bins.decades.iter().enumerate() {
            let Some(decade) = decade.get() else { continue };
            for (bin, count) in decade.iter().enumerate() {
                into.add((1 + index * BINS_PER_DECADE + bin) as u16, count.load(Relaxed));
            }
        }
    }
}

/// Decade and bin of a value; `None` for zero, which has a bin of its own. A bin is named by the two leading
/// digits: 5 is "50" of decade 0, 1234 is "12" of decade 3.
#[inline]
fn bin_of(value: u64) -> Option<(usize, usize)> {
    let decade = value.checked_ilog10()?;
    let digits = if decade == 0 {
        value * 10
    } else {
        value / 10u64.pow(decade - 1)
    };
    Some((decade as usize, digits as usize - 10))
}

/// Merged counts by bin, in ascending order of bins, without empty ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bins(Vec<(u16, u64)>);

impl Bins {
    fn add(&mut self, bin: u16, count: u64) {
        if count == 0 {
            return;
        }
        match self.0.binary_search_by_key(&bin, |&(b, _)| b) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (bin, count)),
        }
    }

    /// What came since `earlier`; counts never shrink, so this is exact.
    pub fn since(&self, earlier: &Bins) -> Bins {
        let before = |bin| {
            earlier
                .0
                .binary_search_by_key(&bin, |&(b, _)| b)
                .map_or(0, |at| earlier.0[at].1)
        };
        let newer = self
            .0
            .iter()
            .map(|&(bin, count)| (bin, count.saturating_sub(before(bin))));
        Bins(newer.filter(|&(_, count)| count > 0).collect())
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lower bound, width and count of each bin that is not empty, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        self.0.iter().map(|&(bin, count)| (left(bin), width(bin), count))
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(_, count)| count).sum()
    }
}

/// Lower bound of a bin.
fn left(bin: u16) -> f64 {
    if bin == 0 {
        return 0.0;
    }
    let (decade, digits) = ((bin - 1) / 90, (bin - 1) % 90 + 10);
    f64::from(digits) / 10.0 * 10f64.powi(i32::from(decade))
}

/// Width of a bin; the bin of zero has none.
fn width(bin: u16) -> f64 {
    if bin == 0 {
        0.0
    } else {
        10f64.powi(i32::from((bin - 1) / 90)) / 10.0
    }
}

/// The point of a bin with the least relative error, which the sum is made of.
fn midpoint(bin: u16) -> f64 {
    let (bottom, interval) = (left(bin), width(bin));
    if bin == 0 {
        0.0
    } else {
        bottom + interval * (bottom / (bottom + bottom + interval))
    }
}

/// The quantiles that Envoy reports.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.90, 0.95, 0.99, 0.995, 0.999, 1.0];

/// The upper bounds of the buckets that Envoy reports, unless `histogram_bucket_settings` says otherwise.
pub const DEFAULT_BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0, 300000.0,
    600000.0, 1800000.0, 3600000.0,
];

/// What can be told from merged bins, in the histogram's unit.
pub struct Summary<'a> {
    bins: &'a Bins,
    unit: Unit,
}

impl<'a> Summary<'a> {
    /// Reads `bins` as values of `unit`.
    pub fn new(bins: &'a Bins, unit: Unit) -> Self {
        Self { bins, unit }
    }

    /// The value at each of [`QUANTILES`]; NaN when nothing was recorded.
    pub fn quantiles(&self) -> [f64; QUANTILES.len()] {
        let mut out = [f64::NAN; QUANTILES.len()];
        let bins = &self.bins.0;
        let total = self.bins.count() as f64;
        let Some(first) = bins.first() else { return out };
        let (mut at, mut lower, mut upper) = (0, 0.0, first.1 as f64);
        for (value, quantile) in out.iter_mut().zip(QUANTILES) {
            let rank = total * quantile;
            while at + 1 < bins.len() && upper < rank {
                at += 1;
                lower = upper;
                upper += bins[at].1 as f64;
            }
            let (bin, count) = bins[at];
            // The k-th of n values spread evenly over the bin is expected at k/(n+1) of its width.
            let k = (rank - lower).ceil().max(1.0);
            *value = (left(bin) + k / (count as f64 + 1.0) * width(bin)) / self.unit.scale();
        }
        out
    }

    /// How many values are in bins at or below the one that holds `bound` (Envoy's, a bin more than strict "below").
    pub fn count_below(&self, bound: f64) -> u64 {
        let bound = bound * self.unit.scale();
        // The lower bound of a bin is computed as the bound is written, so the comparison needs no slack beyond
        // the rounding of the scale.
        let slack = bound * 1e-12;
        self.bins
            .0
            .iter()
            .take_while(|&&(bin, _)| left(bin) <= bound + slack)
            .map(|&(_, count)| count)
            .sum()
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.bins.count()
    }

    /// Approximate sum of the values, out of the bins as Envoy computes it.
    pub fn sum(&self) -> f64 {
        // Not `sum`: its zero is negative.
        self.bins
            .0
            .iter()
            .fold(0.0, |sum, &(bin, count)| sum + midpoint(bin) * count as f64)
            / self.unit.scale()
    }
}

/// What a histogram held when it was last flushed: the sinks' and the admin's "interval" is what came between the
/// two last flushes.
#[derive(Default)]
pub(super) struct History {
    total: Bins,
    pub(super) interval: Bins,
}

impl History {
    /// Whether there were values at the last flush.
    pub(super) fn is_flushed(&self) -> bool {
        !self.total.is_empty()
    }

    /// Ends an interval.
    pub(super) fn flush(&mut self, total: Bins) {
        self.interval = total.since(&self.total);
        self.total = total;
    }
}
