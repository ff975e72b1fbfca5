//! The store: all scopes by name.

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak, atomic::AtomicU64};

use super::block::{AnyBlock, Block, Kind, StatsBlock};
use super::config::StatsConfig;
use super::dynamic::ExplicitTags;
use super::import::Imports;
use super::lock;
use super::scope::{Scope, ScopeInner, sanitized};
use super::tags::Tag;
use super::walk::ScopeContents;

/// Every statistic of the process. Scopes and dynamic names are created under a lock (on the control side, or at
/// the first use of a name); values are written without.
pub struct Store {
    config: StatsConfig,
    shards: usize,
    /// What a parent told at a hot restart.
    imports: Imports,
    scopes: Mutex<BTreeMap<Arc<str>, Weak<ScopeInner>>>,
    /// Blocks that the stats matcher rejected as a whole: one per type, for all scopes.
    discarded: Mutex<HashMap<TypeId, Arc<dyn AnyBlock>>>,
    /// Prefixes of names that are shown to Prometheus without `envoy_` (Envoy's custom stat namespaces).
    namespaces: Mutex<Vec<Box<str>>>,
    /// How often statistics were evicted.
    pub(super) evictions: AtomicU64,
}

impl Store {
    /// A store for `workers` worker threads; every other thread shares one more shard.
    pub fn new(config: StatsConfig, workers: usize) -> Arc<Self> {
        Self::with_imports(config, workers, false)
    }

    /// A store that also takes the values of another process: in a shard before the last, so that they are added to
    /// this process's own wherever somebody reads, and can be told from them.
    pub fn with_imports(config: StatsConfig, workers: usize, imports: bool) -> Arc<Self> {
        Arc::new(Self {
            config,
            shards: workers + 1 + usize::from(imports),
            imports: Imports::new(imports.then_some(workers)),
            scopes: Mutex::default(),
            discarded: Mutex::default(),
            namespaces: Mutex::default(),
            evictions: AtomicU64::new(0),
        })
    }

    /// The scope of that name (a trailing dot is optional), shared with everybody who has it.
    pub fn scope(self: &Arc<Self>, name: &str) -> Scope {
        self.scope_with(sanitized(name), None)
    }

    /// A scope whose tags its creator knows: Prometheus sees `tags`, and `extracted` in place of the prefix. The
    /// prefix is not searched for tags then; only response codes still are extracted from the names below it.
    pub fn scope_tagged(self: &Arc<Self>, name: &str, tags: &[(&str, &str)], extracted: &str) -> Scope {
        let tags = tags.iter().map(|(name, value)| Tag::new(name, value)).collect();
        self.scope_with(
            sanitized(name),
            Some(ExplicitTags {
                extracted_name: sanitized(extracted).into(),
                tags,
            }),
        )
    }

    /// The scope without a prefix.
    pub fn root(self: &Arc<Self>) -> Scope {
        self.scope("")
    }

    fn scope_with(self: &Arc<Self>, prefix: String, tags: Option<ExplicitTags>) -> Scope {
        let mut scopes = lock(&self.scopes);
        if let Some(scope) = scopes.get(prefix.as_str()).and_then(Weak::upgrade) {
            return Scope(scope);
        }
        let prefix: Arc<str> = prefix.into();
        let scope = Arc::new(ScopeInner::new(self.clone(), prefix.clone(), tags));
        scopes.insert(prefix, Arc::downgrade(&scope));
        Scope(scope)
    }

    /// Called by the last owner of a scope. Another may have made a new scope of that name meanwhile.
    pub(super) fn forget(&self, prefix: &str) {
        let mut scopes = lock(&self.scopes);
        if scopes.get(prefix).is_some_and(|scope| scope.strong_count() == 0) {
            scopes.remove(prefix);
        }
    }

    /// The configuration.
    pub fn config(&self) -> &StatsConfig {
        &self.config
    }

    /// How many shards a value has.
    pub(super) fn shards(&self) -> usize {
        self.shards
    }

    /// Values of another process.
    pub(super) fn imports(&self) -> &Imports {
        &self.imports
    }

    /// The scope of that name, if somebody has it.
    pub(super) fn existing(&self, prefix: &str) -> Option<Arc<ScopeInner>> {
        lock(&self.scopes).get(prefix).and_then(Weak::upgrade)
    }

    /// All scopes in the order of their prefixes.
    pub(super) fn scopes(&self) -> Vec<Arc<ScopeInner>> {
        lock(&self.scopes).values().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn discarded<T: StatsBlock>(&self) -> Arc<Block<T>> {
        let mut discarded = lock(&self.discarded);
        let block = discarded
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Arc::new(Block::<T>::new(self.shards)));
        block
            .clone()
            .into_any()
            .downcast()
            .unwrap_or_else(|_| Arc::new(Block::new(self.shards)))
    }

    /// Names that start with `namespace` and a dot are shown to Prometheus without it and without `envoy_`.
    pub fn register_namespace(&self, namespace: &str) {
        let namespace = format!("{namespace}.");
        let mut known = lock(&self.namespaces);
        if !known.iter().any(|known| **known == *namespace) {
            known.push(namespace.into());
        }
    }

    pub(super) fn namespaces(&self) -> Vec<Box<str>> {
        lock(&self.namespaces).clone()
    }

    /// Ends the interval of every histogram: called once per `stats_flush_interval`.
    pub fn flush(&self) {
        for scope in self.scopes() {
            let contents = scope.contents();
            contents.blocks.iter().for_each(|slot| slot.block.flush());
            contents.dynamic.values().for_each(|stat| stat.flush());
        }
    }

    /// Sets every counter back to zero (`POST /reset_counters`).
    pub fn reset_counters(&self) {
        self.imports.forget_counters();
        for scope in self.scopes() {
            let contents = scope.contents();
            contents.blocks.iter().for_each(|slot| slot.block.reset_counters());
            contents.codes.iter().for_each(|codes| codes.reset());
            contents.dynamic.values().for_each(|stat| stat.reset_counter());
        }
    }

    /// A counter's value by its full name, if it is listed. Walks everything: for tests and rare lookups.
    pub fn counter_value(&self, name: &str) -> Option<u64> {
        self.find(name, Kind::Counter)
    }

    /// A gauge's value by its full name, if it is listed. Walks everything: for tests and rare lookups.
    pub fn gauge_value(&self, name: &str) -> Option<u64> {
        self.find(name, Kind::Gauge)
    }

    /// How many values a histogram recorded, by its full name, if it is listed.
    pub fn histogram_count(&self, name: &str) -> Option<u64> {
        self.find(name, Kind::Histogram(super::Unit::Unspecified))
    }

    fn find(&self, name: &str, kind: Kind) -> Option<u64> {
        let mut found = None;
        for scope in self.scopes() {
            let Some(rest) = name.strip_prefix(scope.prefix()) else {
                continue;
            };
            for stat in ScopeContents::new(scope.clone()).stats() {
                if std::mem::discriminant(&stat.kind()) == std::mem::discriminant(&kind)
                    && stat.name() == rest
                    && stat.listed()
                {
                    *found.get_or_insert(0) += stat.number();
                }
            }
        }
        found
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} scopes, {} shards)", lock(&self.scopes).len(), self.shards)
    }
}
