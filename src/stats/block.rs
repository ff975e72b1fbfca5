//! Static blocks of statistics: a struct of cells with a descriptor per field, made by [`stats_block!`].
//!
//! A block belongs to a scope ("cluster.foo."). Names are put together only when somebody reads; the cells of a
//! shard are allocated when its thread first touches the block, so ten thousand idle clusters cost a few hundred
//! bytes each.
//!
//! [`stats_block!`]: crate::stats_block

use std::any::Any;
use std::sync::{Arc, Mutex};

use super::cell::{CounterCell, GaugeCell, GaugeValue};
use super::histogram::{Bins, HistogramCell, History, Unit};
use super::lock;
use super::scope::ScopeInner;
use super::shard::Sharded;

/// What a statistic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of values of a unit.
    Histogram(Unit),
    /// A string (dynamic statistics only).
    TextReadout,
}

/// One field of a block.
#[derive(Debug)]
pub struct StatDesc {
    /// Envoy's name below the scope's prefix, e.g. `circuit_breakers.default.cx_open`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Listed only once it was used: Envoy creates such statistics when they first occur.
    pub lazy: bool,
    /// Listed only with `?hidden=include|only` (Envoy's `HiddenAccumulate` gauges).
    pub hidden: bool,
    /// Not carried over by a hot restart (Envoy's `NeverImport` gauges).
    pub never_import: bool,
}

/// A field's cell, for readers.
pub enum CellRef<'a> {
    /// A counter's.
    Counter(&'a CounterCell),
    /// A gauge's.
    Gauge(&'a GaugeCell),
    /// A histogram's.
    Histogram(&'a HistogramCell),
}

impl<'a> From<&'a CounterCell> for CellRef<'a> {
    fn from(cell: &'a CounterCell) -> Self {
        Self::Counter(cell)
    }
}

impl<'a> From<&'a GaugeCell> for CellRef<'a> {
    fn from(cell: &'a GaugeCell) -> Self {
        Self::Gauge(cell)
    }
}

impl<'a> From<&'a HistogramCell> for CellRef<'a> {
    fn from(cell: &'a HistogramCell) -> Self {
        Self::Histogram(cell)
    }
}

/// A struct made by [`stats_block!`](crate::stats_block).
pub trait StatsBlock: Default + Send + Sync + 'static {
    /// One descriptor per field, in the order of the fields.
    const DESCS: &'static [StatDesc];
    /// One accessor per field, in the same order.
    const CELLS: &'static [fn(&Self) -> CellRef<'_>];
}

/// Defines a block of statistics: one line per field, `kind name [=> "envoy.name"], "doc";`.
///
/// Kinds are `counter`, `gauge` and `histogram(ms | us | bytes | percent | none)`; options in the same brackets:
/// `lazy` (listed once used, as Envoy lists what it creates at first use), `hidden`, `never_import`.
///
/// ```
/// nuncio::stats_block! {
///     /// Envoy's `tcp.<stat_prefix>.` statistics
///     pub struct TcpStats {
///         counter downstream_cx_total, "Connections handled";
///         gauge downstream_cx_rx_bytes_buffered, "Bytes read and not yet forwarded";
///         histogram(ms) session_time, "Length of a session";
///         counter(lazy) bad => "errors.bad", "Not listed before it happened";
///     }
/// }
/// let store = nuncio::stats::Store::new(Default::default(), 1);
/// let scope = store.scope("tcp.ingress.");
/// let stats = scope.block::<TcpStats>();
/// stats.local().downstream_cx_total.inc();
/// assert_eq!(store.counter_value("tcp.ingress.downstream_cx_total"), Some(1));
/// assert_eq!(store.counter_value("tcp.ingress.errors.bad"), None);
/// ```
#[macro_export]
macro_rules! stats_block {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($kind:ident $(($($option:ident),*))? $field:ident $(=> $stat:literal)?, $doc:literal;)*
    }) => {
        $(#[$meta])*
        #[derive(Default)]
        $vis struct $name {
            $(#[doc = $doc] pub $field: $crate::__stats_cell!($kind),)*
        }

        impl $crate::stats::StatsBlock for $name {
            const DESCS: &'static [$crate::stats::StatDesc] = &[$($crate::stats::StatDesc {
                name: $crate::__stats_name!($field $($stat)?),
                kind: $crate::__stats_kind!($kind $($($option)*)?),
                lazy: $crate::__stats_has!(lazy $($($option)*)?),
                hidden: $crate::__stats_has!(hidden $($($option)*)?),
                never_import: $crate::__stats_has!(never_import $($($option)*)?),
            }),*];
            const CELLS: &'static [fn(&Self) -> $crate::stats::CellRef<'_>] =
                &[$(|block| $crate::stats::CellRef::from(&block.$field)),*];
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __stats_cell {
    (counter) => {
        $crate::stats::CounterCell
    };
    (gauge) => {
        $crate::stats::GaugeCell
    };
    (histogram) => {
        $crate::stats::HistogramCell
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __stats_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $stat:literal) => {
        $stat
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __stats_kind {
    (counter $($option:ident)*) => {
        $crate::stats::Kind::Counter
    };
    (gauge $($option:ident)*) => {
        $crate::stats::Kind::Gauge
    };
    (histogram ms $($option:ident)*) => {
        $crate::stats::Kind::Histogram($crate::stats::Unit::Milliseconds)
    };
    (histogram us $($option:ident)*) => {
        $crate::stats::Kind::Histogram($crate::stats::Unit::Microseconds)
    };
    (histogram bytes $($option:ident)*) => {
        $crate::stats::Kind::Histogram($crate::stats::Unit::Bytes)
    };
    (histogram percent $($option:ident)*) => {
        $crate::stats::Kind::Histogram($crate::stats::Unit::Percent)
    };
    (histogram none $($option:ident)*) => {
        $crate::stats::Kind::Histogram($crate::stats::Unit::Unspecified)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __stats_has {
    (lazy lazy $($rest:ident)*) => { true };
    (hidden hidden $($rest:ident)*) => { true };
    (never_import never_import $($rest:ident)*) => { true };
    ($wanted:ident $other:ident $($rest:ident)*) => { $crate::__stats_has!($wanted $($rest)*) };
    ($wanted:ident) => { false };
}

/// A block in a scope. Cheap to clone and to hold: the cells come with the first [`Stats::local`] of a shard.
/// Keeps its scope listed for as long as it lives.
pub struct Stats<T> {
    block: Arc<Block<T>>,
    _scope: Arc<ScopeInner>,
}

impl<T> Clone for Stats<T> {
    fn clone(&self) -> Self {
        Self {
            block: self.block.clone(),
            _scope: self._scope.clone(),
        }
    }
}

impl<T: StatsBlock> Stats<T> {
    pub(super) fn new(block: Arc<Block<T>>, scope: Arc<ScopeInner>) -> Self {
        Self { block, _scope: scope }
    }

    /// The cells that the current thread writes to. Take it once where several fields are touched.
    #[inline]
    pub fn local(&self) -> &T {
        self.block.cells.local()
    }

    /// The cells of every thread that wrote to any: for the few who read what they count.
    pub fn shards(&self) -> impl Iterator<Item = &T> {
        self.block.cells.touched()
    }
}

impl<T> std::fmt::Debug for Stats<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stats<{}>({})", std::any::type_name::<T>(), self._scope.prefix())
    }
}

/// The values of one block type in one scope.
pub(super) struct Block<T> {
    cells: Sharded<T>,
    /// What the histograms held at the last flushes; empty until one is used.
    histories: Mutex<Vec<(usize, History)>>,
}

impl<T: StatsBlock> Block<T> {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            cells: Sharded::new(shards),
            histories: Mutex::default(),
        }
    }

    fn cells(&self, index: usize) -> impl Iterator<Item = CellRef<'_>> {
        let cell = T::CELLS[index];
        self.cells.touched().map(cell)
    }
}

/// A block with its type erased: what readers see.
pub(super) trait AnyBlock: Send + Sync {
    fn descs(&self) -> &'static [StatDesc];
    /// Nothing was ever written: every value is zero and unused.
    fn is_untouched(&self) -> bool;
    fn counter(&self, index: usize) -> u64;
    fn gauge(&self, index: usize) -> GaugeValue;
    /// Whether a histogram recorded anything.
    fn recorded(&self, index: usize) -> bool;
    /// Value and use of any field: a counter is used when it is not zero, a histogram has no value here.
    fn number(&self, index: usize) -> GaugeValue {
        match self.descs()[index].kind {
            Kind::Gauge => self.gauge(index),
            Kind::Histogram(_) => GaugeValue {
                value: 0,
                used: self.recorded(index),
            },
            Kind::Counter | Kind::TextReadout => {
                let value = self.counter(index);
                GaugeValue { value, used: value > 0 }
            }
        }
    }
    /// All values since start, and those of the last flush interval.
    fn histogram(&self, index: usize) -> (Bins, Bins);
    /// Whether a histogram had values when an interval ended.
    fn flushed(&self, index: usize) -> bool;
    /// Ends the interval of every histogram.
    fn flush(&self);
    fn reset_counters(&self);
    /// Replaces a shard's share of a counter or gauge.
    fn put(&self, shard: usize, index: usize, value: u64);
    /// Sets a shard's share of every gauge to zero.
    fn clear_gauges(&self, shard: usize);
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: StatsBlock> AnyBlock for Block<T> {
    fn descs(&self) -> &'static [StatDesc] {
        T::DESCS
    }

    fn is_untouched(&self) -> bool {
        self.cells.is_untouched()
    }

    fn counter(&self, index: usize) -> u64 {
        let value = |cell| {
            if let CellRef::Counter(cell) = cell {
                cell.value()
            } else {
                0
            }
        };
        self.cells(index).map(value).fold(0, u64::wrapping_add)
    }

    fn gauge(&self, index: usize) -> GaugeValue {
        GaugeValue::sum(self.cells(index).filter_map(|cell| match cell {
            CellRef::Gauge(cell) => Some(cell),
            _ => None,
        }))
    }

    fn recorded(&self, index: usize) -> bool {
        self.cells(index)
            .any(|cell| matches!(cell, CellRef::Histogram(cell) if cell.used()))
    }

    fn histogram(&self, index: usize) -> (Bins, Bins) {
        let mut total = Bins::default();
        for cell in self.cells(index) {
            if let CellRef::Histogram(cell) = cell {
                cell.merge_into(&mut total);
            }
        }
        let histories = lock(&self.histories);
        let interval = histories
            .iter()
            .find(|(at, _)| *at == index)
            .map(|(_, history)| history.interval.clone());
        (total, interval.unwrap_or_default())
    }

    fn flushed(&self, index: usize) -> bool {
        lock(&self.histories).iter().any(|(at, _)| *at == index)
    }

    fn flush(&self) {
        if self.is_untouched() {
            return;
        }
        for (index, desc) in T::DESCS.iter().enumerate() {
            if !matches!(desc.kind, Kind::Histogram(_)) {
                continue;
            }
            let (total, _) = self.histogram(index);
            if total.is_empty() {
                continue;
            }
            let mut histories = lock(&self.histories);
            match histories.iter_mut().find(|(at, _)| *at == index) {
                Some((_, history)) => history.flush(total),
                None => {
                    let mut history = History::default();
                    history.flush(total);
                    histories.push((index, history));
                }
            }
        }
    }

    fn reset_counters(&self) {
        for shard in self.cells.touched() {
            for cell in T::CELLS {
                if let CellRef::Counter(counter) = cell(shard) {
                    counter.reset();
                }
            }
        }
    }

    fn put(&self, shard: usize, index: usize, value: u64) {
        let Some(cell) = T::CELLS.get(index) else { return };
        match cell(self.cells.at(shard)) {
            CellRef::Counter(cell) => cell.put(value),
            CellRef::Gauge(cell) => cell.put(value),
            CellRef::Histogram(_) => {}
        }
    }

    fn clear_gauges(&self, shard: usize) {
        let Some(cells) = self.cells.get(shard) else { return };
        for cell in T::CELLS {
            if let CellRef::Gauge(gauge) = cell(cells)
                && gauge.value() != 0
            {
                gauge.put(0);
            }
        }
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
