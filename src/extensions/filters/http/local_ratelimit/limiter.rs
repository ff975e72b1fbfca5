//! The buckets of one configuration, and which of them a request has to pass.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use super::bucket::Bucket;
use crate::route::rate_limit::Descriptor;

type Entries = Vec<(String, String)>;

/// How a bucket is made (`envoy.type.v3.TokenBucket`).
#[derive(Debug, Clone, Copy)]
pub(super) struct BucketConfig {
    pub max: u32,
    pub per_fill: u32,
    pub interval: Duration,
}

/// `LocalRateLimitDescriptor`
#[derive(Debug, Clone)]
pub(super) struct DescriptorConfig {
    /// An empty value stands for any.
    pub entries: Entries,
    pub bucket: BucketConfig,
    pub shadow: bool,
}

/// What a limiter is made of; a connection's own limiter is made of the same.
#[derive(Debug, Clone, Default)]
pub(super) struct LimiterConfig {
    /// None: there is no limit but the descriptors'.
    pub default: Option<BucketConfig>,
    pub descriptors: Vec<DescriptorConfig>,
    pub always_consume_default: bool,
    /// How many buckets a descriptor with a wildcard may have; the least recently used makes room.
    pub max_dynamic: usize,
}

/// Buckets. Shared by all workers; nothing in it is locked.
#[derive(Debug)]
pub(super) struct Limiter {
    default: Option<Limit>,
    exact: HashMap<Entries, Limit>,
    wildcards: Vec<Wildcard>,
    always_consume_default: bool,
}

#[derive(Debug, Clone)]
struct Limit {
    bucket: Arc<Bucket>,
    shadow: bool,
}

/// A descriptor with values left open: one bucket for each combination that was seen.
#[derive(Debug)]
struct Wildcard {
    entries: Entries,
    config: BucketConfig,
    shadow: bool,
    max: usize,
    start: Instant,
    /// Copied when a new combination comes: rare, and small by `max_dynamic_descriptors`.
    seen: ArcSwap<HashMap<Entries, Arc<Seen>>>,
}

#[derive(Debug)]
struct Seen {
    bucket: Arc<Bucket>,
    /// Microseconds from the wildcard's start.
    last_used: AtomicU64,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub allowed: bool,
    /// The limit that refused is only watched.
    pub shadow: bool,
    /// The bucket that decided: what `x-ratelimit-*` tell of.
    pub bucket: Option<Arc<Bucket>>,
    /// `x_ratelimit_option` of the descriptor that decided.
    pub headers: Option<bool>,
}

struct Matched {
    limit: Limit,
    hits: f64,
    headers: Option<bool>,
}

impl BucketConfig {
    fn build(self) -> Arc<Bucket> {
        Arc::new(Bucket::new(self.max, self.per_fill, self.interval))
    }
}

impl Limiter {
    /// Full buckets.
    pub fn new(config: &LimiterConfig) -> Self {
        let limit = |bucket: BucketConfig, shadow| Limit {
            bucket: bucket.build(),
            shadow,
        };
        let (wildcards, exact): (Vec<_>, Vec<_>) = config.descriptors.iter().partition(|d| d.is_wildcard());
        Self {
            default: config.default.map(|bucket| limit(bucket, false)),
            exact: exact
                .into_iter()
                .map(|d| (d.entries.clone(), limit(d.bucket, d.shadow)))
                .collect(),
            wildcards: wildcards.into_iter().map(|d| Wildcard::new(d, config)).collect(),
            always_consume_default: config.always_consume_default,
        }
    }

    /// Takes from every bucket the request has a descriptor for, slowest first, and from the default one. A limit that
    /// is only watched lets the others decide.
    pub fn check(&self, descriptors: &[Descriptor], now: Instant) -> Verdict {
        let mut matched: SmallVec<[Matched; 4]> = descriptors.iter().filter_map(|d| self.find(d, now)).collect();
        matched.sort_by(|a, b| a.limit.bucket.rate().total_cmp(&b.limit.bucket.rate()));
        let mut watched = None;
        for m in &matched {
            if !m.limit.bucket.take(m.hits, now) {
                if !m.limit.shadow {
                    return m.verdict(false);
                }
                watched.get_or_insert(m);
            }
        }
        let mut first = matched.first().map_or_else(Verdict::free, |m| m.verdict(true));
        if let Some(default) = &self.default
            && (matched.is_empty() || self.always_consume_default)
        {
            let allowed = default.bucket.take(1.0, now);
            if !allowed || matched.is_empty() {
                first = Verdict {
                    allowed,
                    // A bucket that can hold nothing shows no numbers.
                    bucket: Some(default.bucket.clone()).filter(|b| b.max() > 0),
                    ..Verdict::free()
                };
            }
            if !allowed {
                return first;
            }
        }
        watched.map_or(first, |m| m.verdict(false))
    }

    fn find(&self, descriptor: &Descriptor, now: Instant) -> Option<Matched> {
        let limit = match self.exact.get(&descriptor.entries) {
            Some(limit) => limit.clone(),
            None => self
                .wildcards
                .iter()
                .find(|w| w.matches(&descriptor.entries))?
                .limit(&descriptor.entries, now),
        };
        Some(Matched {
            limit,
            hits: descriptor.hits_addend.map_or(1.0, |hits| hits as f64),
            headers: descriptor.x_ratelimit_headers,
        })
    }
}

impl Matched {
    fn verdict(&self, allowed: bool) -> Verdict {
        Verdict {
            allowed,
            shadow: self.limit.shadow,
            bucket: Some(self.limit.bucket.clone()),
            headers: self.headers,
        }
    }
}

impl Verdict {
    fn free() -> Self {
        Self {
            allowed: true,
            shadow: false,
            bucket: None,
            headers: None,
        }
    }
}

impl DescriptorConfig {
    fn is_wildcard(&self) -> bool {
        self.entries.iter().any(|(_, value)| value.is_empty())
    }
}

impl Wildcard {
    fn new(descriptor: &DescriptorConfig, config: &LimiterConfig) -> Self {
        Self {
            entries: descriptor.entries.clone(),
            config: descriptor.bucket,
            shadow: descriptor.shadow,
            max: config.max_dynamic,
            start: Instant::now(),
            seen: ArcSwap::default(),
        }
    }

    fn matches(&self, entries: &Entries) -> bool {
        self.entries.len() == entries.len()
            && self
                .entries
                .iter()
                .zip(entries)
                .all(|((key, value), (k, v))| key == k && (value.is_empty() || value == v))
    }

    fn limit(&self, entries: &Entries, now: Instant) -> Limit {
        let time = u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX);
        let bucket = match self.seen.load().get(entries) {
            Some(seen) => {
                seen.last_used.store(time, Relaxed);
                seen.bucket.clone()
            }
            None => self.add(entries, time),
        };
        Limit {
            bucket,
            shadow: self.shadow,
        }
    }

    /// Another worker may add the same combination at the same time: whoever comes second uses the first's bucket.
    fn add(&self, entries: &Entries, time: u64) -> Arc<Bucket> {
        let new = Arc::new(Seen {
            bucket: self.config.build(),
            last_used: AtomicU64::new(time),
        });
        self.seen.rcu(|seen| {
            let mut seen = HashMap::clone(seen);
            if !seen.contains_key(entries) {
                while seen.len() >= self.max.max(1) {
                    let oldest = seen.iter().min_by_key(|(_, s)| s.last_used.load(Relaxed));
                    let Some(oldest) = oldest.map(|(entries, _)| entries.clone()) else {
                        break;
                    };
                    seen.remove(&oldest);
                }
                seen.insert(entries.clone(), new.clone());
            }
            seen
        });
        self.seen
            .load()
            .get(entries)
            .map_or_else(|| new.bucket.clone(), |seen| seen.bucket.clone())
    }
}
