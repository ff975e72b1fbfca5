//! Statistics by label values: what a request adds to, found by its labels without a name being made.
//!
//! Each worker has a map of its own from label values, as bytes, to handles. It is bounded, and only a shortcut: the
//! statistics themselves are in the store, and a value that was seen before costs a hash and a comparison.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Weak},
};

use foldhash::fast::RandomState;
use xds_protos::stats::MetricType;

use super::{
    metric::{Metric, Shape},
    overrides::{Overrides, Values},
};
use crate::stats::{Counter, Gauge, Histogram, Scope, Store, Unit};

/// Most series a worker remembers; past it the map begins anew.
const MAX_SERIES: usize = 8192;

/// Ends a value within a key; no text has it.
const END: u8 = 0xff;

/// Before the values: the shape and the overrides.
const HEAD: usize = 9;

/// The values of all labels, in order, and what they belong to.
#[derive(Debug, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// Starts anew.
    pub(super) fn begin(&mut self, shape: Shape, overrides: Option<&Overrides>) {
        self.0.clear();
        self.0.push(shape as u8);
        self.0.extend(overrides.map_or(0, |o| o.id).to_le_bytes());
    }

    /// The value of the next label.
    pub(super) fn value(&mut self, value: &str) {
        self.0.extend(value.as_bytes());
        self.0.push(END);
    }

    /// The value of the next label, or what stands for none.
    pub(super) fn value_or(&mut self, value: &str, default: &str) {
        self.value(if value.is_empty() { default } else { value });
    }
}

/// What one set of label values is counted in.
pub struct Series {
    key: Box<[u8]>,
    scope: Scope,
    overrides: Option<Arc<Overrides>>,
    evictions: u64,
    /// By the metric's place within its shape; made at their first use, as Envoy does.
    standard: [OnceCell<Option<Handle>>; 4],
    custom: OnceCell<Box<[Handle]>>,
}

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Handle {
    fn add(&self, value: u64) {
        match self {
            Self::Counter(counter) => counter.add(value),
            Self::Gauge(gauge) => gauge.set(value),
            Self::Histogram(histogram) => histogram.record(value),
        }
    }
}

struct Cache {
    store: Weak<Store>,
    evictions: u64,
    series: HashMap<Box<[u8]>, Rc<Series>, RandomState>,
    key: Key,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(Cache {
        store: Weak::new(),
        evictions: 0,
        series: HashMap::default(),
        key: Key::default(),
    });
}

/// The series of the labels that `fill` writes.
pub(super) fn find(scope: &Scope, overrides: Option<&Arc<Overrides>>, fill: impl FnOnce(&mut Key)) -> Rc<Series> {
    CACHE.with_borrow_mut(|cache| {
        let mut key = std::mem::take(&mut cache.key);
        fill(&mut key);
        let series = cache.get(scope, overrides, &key.0);
        cache.key = key;
        series
    })
}

impl Cache {
    fn get(&mut self, scope: &Scope, overrides: Option<&Arc<Overrides>>, key: &[u8]) -> Rc<Series> {
        let store = scope.store();
        let evictions = store.evictions();
        if self.evictions != evictions || !std::ptr::eq(self.store.as_ptr(), Arc::as_ptr(store)) {
            self.series.clear();
            (self.store, self.evictions) = (Arc::downgrade(store), evictions);
        }
        if let Some(known) = self.series.get(key) {
            return known.clone();
        }
        if self.series.len() >= MAX_SERIES {
            self.series.clear();
        }
        let series = Rc::new(Series {
            key: key.into(),
            scope: scope.clone(),
            overrides: overrides.cloned(),
            evictions,
            standard: Default::default(),
            custom: OnceCell::new(),
        });
        self.series.insert(key.into(), series.clone());
        series
    }
}

impl Series {
    /// This one, or what has taken its place since something was evicted.
    pub(super) fn current(self: &Rc<Self>) -> Rc<Self> {
        if self.evictions == self.scope.store().evictions() {
            return self.clone();
        }
        CACHE.with_borrow_mut(|cache| cache.get(&self.scope, self.overrides.as_ref(), &self.key))
    }

    /// Adds to a counter, records in a histogram.
    pub(super) fn add(&self, metric: Metric, value: u64) {
        let at = metric as usize - self.shape().first() as usize;
        let handle = self.standard.get(at).map(|h| h.get_or_init(|| self.make(metric)));
        if let Some(Some(handle)) = handle {
            handle.add(value);
        }
    }

    /// Counts in the user's own metrics.
    pub(super) fn add_custom(&self, values: &Values) {
        let Some(overrides) = &self.overrides else { return };
        let handles = self.custom.get_or_init(|| self.make_custom(overrides));
        for (metric, handle) in overrides.custom.iter().zip(handles) {
            handle.add(values.amount(metric));
        }
    }

    fn shape(&self) -> Shape {
        Shape::of(self.key.first().copied().unwrap_or_default())
    }

    /// The values of labels, and those of expressions.
    fn values(&self) -> (Vec<(&str, &str)>, Vec<&str>) {
        let values = self.key.get(HEAD..).unwrap_or_default();
        let mut values = values
            .split(|byte| *byte == END)
            .map(|v| std::str::from_utf8(v).unwrap_or_default());
        let labels = self
            .shape()
            .labels()
            .iter()
            .map(|name| (*name, values.next().unwrap_or_default()));
        let labels = labels.collect();
        (labels, values.collect())
    }

    fn make(&self, metric: Metric) -> Option<Handle> {
        let (mut labels, texts) = self.values();
        if let Some(overrides) = &self.overrides {
            if overrides.drops(metric) {
                return None;
            }
            labels = overrides.changed(metric, labels, &texts);
        }
        let name = format!("istiocustom.istio_{}", metric.name());
        Some(match metric.unit() {
            None => Handle::Counter(self.scope.evictable_counter(&name, &labels)),
            Some(unit) => Handle::Histogram(self.scope.evictable_histogram(&name, unit, &labels)),
        })
    }

    fn make_custom(&self, overrides: &Overrides) -> Box<[Handle]> {
        let (_, texts) = self.values();
        let handle = |metric: &super::overrides::CustomMetric| {
            let labels = metric.labels(&texts);
            let name = format!("istiocustom.istio_{}", metric.name);
            match metric.kind {
                MetricType::Counter => Handle::Counter(self.scope.evictable_counter(&name, &labels)),
                MetricType::Gauge => Handle::Gauge(self.scope.evictable_gauge(&name, &labels)),
                MetricType::Histogram => Handle::Histogram(self.scope.evictable_histogram(&name, Unit::Bytes, &labels)),
            }
        };
        overrides.custom.iter().map(handle).collect()
    }
}
