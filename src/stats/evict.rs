//! Statistics that go away when nobody has used them for an interval (`stats_eviction_interval`): those whose names come
//! out of traffic, which would otherwise pile up for as long as the process lives.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::block::Kind;
use super::dynamic::{Counter, Dynamic, Gauge, Histogram};
use super::histogram::Unit;
use super::scope::Scope;
use super::store::Store;

/// How long a dynamic statistic is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// As long as its scope.
    Always,
    /// Until it was not used for an interval.
    WhileUsed,
}

/// What a statistic was when it was last looked at.
#[derive(Debug)]
pub(super) struct Seen(AtomicU64);

// A value that nothing counts up to: the first look finds a change.
impl Default for Seen {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Scope {
    /// Like [`Scope::counter_tagged`], gone when it was not used for an interval. A handle that is kept must be asked
    /// for anew when [`Store::evictions`] has changed.
    pub fn evictable_counter(&self, name: &str, tags: &[(&str, &str)]) -> Counter {
        Counter::new(self.tagged(name, Kind::Counter, tags, Stay::WhileUsed), self.0.clone())
    }

    /// Like [`Scope::gauge_tagged`]; see [`Scope::evictable_counter`].
    pub fn evictable_gauge(&self, name: &str, tags: &[(&str, &str)]) -> Gauge {
        Gauge::new(self.tagged(name, Kind::Gauge, tags, Stay::WhileUsed), self.0.clone())
    }

    /// Like [`Scope::histogram_tagged`]; see [`Scope::evictable_counter`].
    pub fn evictable_histogram(&self, name: &str, unit: Unit, tags: &[(&str, &str)]) -> Histogram {
        let kind = Kind::Histogram(unit);
        Histogram::new(self.tagged(name, kind, tags, Stay::WhileUsed), self.0.clone())
    }
}

impl Store {
    /// Takes away what was not used since the last call: once per `stats_eviction_interval`.
    pub fn evict_unused(&self) {
        for scope in self.scopes() {
            let mut contents = scope.contents();
            let before = contents.dynamic.len();
            contents.dynamic.retain(|_, stat| stat.was_used());
            if contents.dynamic.len() < before {
                self.evictions.fetch_add(1, Relaxed);
            }
        }
    }

    /// Changes whenever statistics were evicted.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }
}

impl Dynamic {
    /// Whether it changed since it was last asked.
    fn was_used(&self) -> bool {
        let Some(Seen(seen)) = &self.seen else { return true };
        let now = match self.kind() {
            Kind::Counter => self.counter(),
            Kind::Gauge => self.gauge().value,
            Kind::Histogram(_) => self.histogram().0.count(),
            Kind::TextReadout => return true,
        };
        seen.swap(now, Relaxed) != now
    }
}

#[cfg(test)]
mod tests {
    use crate::stats::{Store, Unit};

    #[test]
    fn what_is_not_used_for_an_interval_goes() {
        let store = Store::new(Default::default(), 1);
        let root = store.root();
        let counter = root.evictable_counter("c", &[("a", "1"), ("b", ""), ("c", "3")]);
        let histogram = root.evictable_histogram("h", Unit::Bytes, &[]);
        let kept = root.counter("kept");
        counter.inc();
        histogram.record(5);
        kept.inc();
        store.evict_unused();
        assert_eq!(store.counter_value("c.a.1.b.c.3"), Some(1));
        assert_eq!(store.evictions(), 0);
        histogram.record(5);
        store.evict_unused();
        assert_eq!(store.counter_value("c.a.1.b.c.3"), None);
        assert_eq!(store.histogram_count("h"), Some(2));
        assert_eq!(store.counter_value("kept"), Some(1));
        assert_eq!(store.evictions(), 1);
        root.evictable_counter("c", &[("a", "1"), ("b", ""), ("c", "3")]).inc();
        assert_eq!(store.counter_value("c.a.1.b.c.3"), Some(1));
    }
}
