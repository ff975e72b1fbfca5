//! What libraries report through the `metrics` facade, as dynamic statistics of the store.
//!
//! The facade's labels become tags, its dots and the store's are the same. A handle is looked up once per call site
//! and key by the facade's user; nothing of ours is on a request's path.

use std::sync::Arc;

use metrics::{CounterFn, GaugeFn, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit as FacadeUnit};

use super::dynamic::{Counter, Gauge, Histogram};
use super::histogram::Unit;
use super::scope::Scope;
use super::store::Store;

/// A recorder for `metrics::set_global_recorder` or `metrics::with_local_recorder`.
pub fn recorder(store: &Arc<Store>) -> impl Recorder + Send + Sync + 'static {
    StoreRecorder(store.root())
}

struct StoreRecorder(Scope);

fn tags(key: &Key) -> Vec<(&str, &str)> {
    key.labels().map(|label| (label.key(), label.value())).collect()
}

impl Recorder for StoreRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<FacadeUnit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<FacadeUnit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<FacadeUnit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> metrics::Counter {
        let tags = tags(key);
        metrics::Counter::from_arc(Arc::new(if tags.is_empty() {
            self.0.counter(key.name())
        } else {
            self.0.counter_tagged(key.name(), &tags)
        }))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        let tags = tags(key);
        metrics::Gauge::from_arc(Arc::new(if tags.is_empty() {
            self.0.gauge(key.name())
        } else {
            self.0.gauge_tagged(key.name(), &tags)
        }))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        let tags = tags(key);
        metrics::Histogram::from_arc(Arc::new(if tags.is_empty() {
            self.0.histogram(key.name(), Unit::Unspecified)
        } else {
            self.0.histogram_tagged(key.name(), Unit::Unspecified, &tags)
        }))
    }
}

impl CounterFn for Counter {
    fn increment(&self, value: u64) {
        self.add(value);
    }

    // The facade lets a library hand over a total; what is missing is added.
    fn absolute(&self, value: u64) {
        self.add(value.saturating_sub(self.value()));
    }
}

/// The store's gauges are whole numbers, as Envoy's; fractions are cut off.
impl GaugeFn for Gauge {
    fn increment(&self, value: f64) {
        self.add(value as u64);
    }

    fn decrement(&self, value: f64) {
        self.sub(value as u64);
    }

    fn set(&self, value: f64) {
        Gauge::set(self, value as u64);
    }
}

impl HistogramFn for Histogram {
    fn record(&self, value: f64) {
        Histogram::record(self, value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::StatsConfig;

    #[test]
    fn the_facade_lands_in_the_store() {
        let store = Store::new(StatsConfig::default(), 1);
        metrics::with_local_recorder(&recorder(&store), || {
            metrics::counter!("lib.calls").increment(2);
            metrics::counter!("lib.calls").absolute(5);
            metrics::gauge!("lib.open", "kind" => "x").set(3.0);
            metrics::histogram!("lib.size").record(17.5);
            assert_eq!(store.counter_value("lib.calls"), Some(5));
            assert_eq!(store.gauge_value("lib.open.kind.x"), Some(3));
            assert_eq!(store.histogram_count("lib.size"), Some(1));
        });
    }
}
