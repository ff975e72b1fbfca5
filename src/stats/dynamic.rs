//! Statistics whose names are only known at run time, and the handles to them.
//!
//! A handle is found by name once (a lock on its scope) and then kept: using it costs what a field of a block costs.

use std::sync::{Arc, Mutex};

use super::block::Kind;
use super::cell::{CounterCell, GaugeCell, GaugeValue};
use super::evict::Seen;
use super::histogram::{Bins, HistogramCell, History, Unit};
use super::lock;
use super::scope::ScopeInner;
use super::shard::Sharded;
use super::tags::Tag;

/// A dynamic statistic's values.
pub(super) enum Value {
    Counter(Sharded<CounterCell>),
    Gauge(Sharded<GaugeCell>),
    Histogram {
        unit: Unit,
        cells: Sharded<HistogramCell>,
        history: Mutex<History>,
    },
    TextReadout(Mutex<String>),
}

/// A dynamic statistic: its values, and the tags it was created with, if any.
pub(super) struct Dynamic {
    pub(super) value: Value,
    pub(super) tags: Option<ExplicitTags>,
    /// What it was when somebody looked for use; none for those that stay for as long as their scope.
    pub(super) seen: Option<Seen>,
}

/// Tags that are given instead of extracted.
pub(super) struct ExplicitTags {
    pub(super) extracted_name: Box<str>,
    pub(super) tags: Box<[Tag]>,
}

impl Dynamic {
    pub(super) fn new(kind: Kind, shards: usize, tags: Option<ExplicitTags>) -> Self {
        let value = match kind {
            Kind::Counter => Value::Counter(Sharded::new(shards)),
            Kind::Gauge => Value::Gauge(Sharded::new(shards)),
            Kind::Histogram(unit) => Value::Histogram {
                unit,
                cells: Sharded::new(shards),
                history: Mutex::default(),
            },
            Kind::TextReadout => Value::TextReadout(Mutex::default()),
        };
        Self {
            value,
            tags,
            seen: None,
        }
    }

    /// The same, gone when it was not used for an interval.
    pub(super) fn evictable(mut self) -> Self {
        self.seen = Some(Seen::default());
        self
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.value {
            Value::Counter(_) => Kind::Counter,
            Value::Gauge(_) => Kind::Gauge,
            Value::Histogram { unit, .. } => Kind::Histogram(*unit),
            Value::TextReadout(_) => Kind::TextReadout,
        }
    }

    pub(super) fn counter(&self) -> u64 {
        match &self.value {
            Value::Counter(cells) => cells.touched().map(CounterCell::value).fold(0, u64::wrapping_add),
            _ => 0,
        }
    }

    pub(super) fn gauge(&self) -> GaugeValue {
        match &self.value {
            Value::Gauge(cells) => GaugeValue::sum(cells.touched()),
            _ => GaugeValue::default(),
        }
    }

    pub(super) fn histogram(&self) -> (Bins, Bins) {
        match &self.value {
            Value::Histogram { cells, history, .. } => (merged(cells), lock(history).interval.clone()),
            _ => Default::default(),
        }
    }

    pub(super) fn text(&self) -> String {
        match &self.value {
            Value::TextReadout(text) => lock(text).clone(),
            _ => String::new(),
        }
    }

    pub(super) fn flushed(&self) -> bool {
        match &self.value {
            Value::Histogram { history, .. } => lock(history).is_flushed(),
            _ => true,
        }
    }

    pub(super) fn flush(&self) {
        if let Value::Histogram { cells, history, .. } = &self.value {
            lock(history).flush(merged(cells));
        }
    }

    /// Replaces a shard's share of a counter or gauge.
    pub(super) fn put(&self, shard: usize, value: u64) {
        match &self.value {
            Value::Counter(cells) => cells.at(shard).put(value),
            Value::Gauge(cells) => cells.at(shard).put(value),
            Value::Histogram { .. } | Value::TextReadout(_) => {}
        }
    }

    /// Sets a shard's share of a gauge to zero.
    pub(super) fn clear_gauge(&self, shard: usize) {
        if let Value::Gauge(cells) = &self.value
            && let Some(cell) = cells.get(shard)
        {
            cell.put(0);
        }
    }

    pub(super) fn reset_counter(&self) {
        if let Value::Counter(cells) = &self.value {
            cells.touched().for_each(CounterCell::reset);
        }
    }
}

fn merged(cells: &Sharded<HistogramCell>) -> Bins {
    let mut bins = Bins::default();
    cells.touched().for_each(|cell| cell.merge_into(&mut bins));
    bins
}

macro_rules! handle {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $name {
            stat: Arc<Dynamic>,
            _scope: Arc<ScopeInner>,
        }

        impl $name {
            pub(super) fn new(stat: Arc<Dynamic>, scope: Arc<ScopeInner>) -> Self {
                Self { stat, _scope: scope }
            }
        }
    };
}

handle! {
    /// A dynamic counter. Keeps its scope listed for as long as it lives.
    Counter
}

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        if let Value::Counter(cells) = &self.stat.value {
            cells.local().add(n);
        }
    }

    /// The sum over all threads.
    pub fn value(&self) -> u64 {
        self.stat.counter()
    }
}

handle! {
    /// A dynamic gauge. Keeps its scope listed for as long as it lives.
    Gauge
}

impl Gauge {
    fn cell(&self) -> Option<&GaugeCell> {
        match &self.stat.value {
            Value::Gauge(cells) => Some(cells.local()),
            _ => None,
        }
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.sub(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        if let Some(cell) = self.cell() {
            cell.add(n);
        }
    }

    /// Takes `n` away.
    #[inline]
    pub fn sub(&self, n: u64) {
        if let Some(cell) = self.cell() {
            cell.sub(n);
        }
    }

    /// Replaces the current thread's share; see [`GaugeCell::set`].
    pub fn set(&self, value: u64) {
        if let Some(cell) = self.cell() {
            cell.set(value);
        }
    }

    /// The sum over all threads.
    pub fn value(&self) -> u64 {
        self.stat.gauge().value
    }
}

handle! {
    /// A dynamic histogram. Keeps its scope listed for as long as it lives.
    Histogram
}

impl Histogram {
    /// Records one value, in the histogram's unit.
    #[inline]
    pub fn record(&self, value: u64) {
        if let Value::Histogram { cells, .. } = &self.stat.value {
            cells.local().record(value);
        }
    }
}

handle! {
    /// A string shown among the statistics. Keeps its scope listed for as long as it lives.
    TextReadout
}

impl TextReadout {
    /// Replaces the text.
    pub fn set(&self, text: impl Into<String>) {
        if let Value::TextReadout(slot) = &self.stat.value {
            *lock(slot) = text.into();
        }
    }
}
