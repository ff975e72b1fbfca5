//! Scopes: a prefix of names, and what is listed under it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use super::block::{AnyBlock, Block, Kind, Stats, StatsBlock};
use super::codes::{CodeBlock, CodeStats};
use super::dynamic::{Counter, Dynamic, ExplicitTags, Gauge, Histogram, TextReadout};
use super::evict::Stay;
use super::histogram::Unit;
use super::lock;
use super::store::Store;
use super::tags::Tag;

/// A prefix of names ("cluster.foo."). Two scopes of one name are one: they share their statistics, which are gone
/// when the last scope and the last handle of that name are dropped, as in Envoy.
#[derive(Clone)]
pub struct Scope(pub(super) Arc<ScopeInner>);

pub(super) struct ScopeInner {
    store: Arc<Store>,
    prefix: Arc<str>,
    /// Tags and extracted prefix that the creator knows, instead of extraction from the prefix.
    tags: Option<Box<ExplicitTags>>,
    contents: Mutex<Contents>,
}

/// What is listed under a scope.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) blocks: Vec<BlockSlot>,
    pub(super) codes: Vec<Arc<CodeBlock>>,
    pub(super) dynamic: BTreeMap<Arc<str>, Arc<Dynamic>>,
}

/// A block, and which of its fields the stats matcher lets through (`None`: all).
#[derive(Clone)]
pub(super) struct BlockSlot {
    pub(super) type_id: std::any::TypeId,
    pub(super) block: Arc<dyn AnyBlock>,
    pub(super) accepted: Option<Arc<[bool]>>,
}

impl Scope {
    /// The prefix with its trailing dot; empty for the root scope.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The store this scope belongs to.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// A scope below this one.
    pub fn scope(&self, name: &str) -> Scope {
        self.0.store.scope(&format!("{}{}", self.0.prefix, sanitized(name)))
    }

    /// The block `T` of this scope, created at the first call. If the stats matcher rejects every name of it, the
    /// handle writes into a block that is shared by all such scopes and never listed.
    pub fn block<T: StatsBlock>(&self) -> Stats<T> {
        let store = &self.0.store;
        let id = std::any::TypeId::of::<T>();
        let mut contents = lock(&self.0.contents);
        if let Some(slot) = contents.blocks.iter().find(|slot| slot.type_id == id)
            && let Ok(block) = slot.block.clone().into_any().downcast::<Block<T>>()
        {
            return Stats::new(block, self.0.clone());
        }
        let accepted = store.config().matcher.accepted_fields(&self.0.prefix, T::DESCS);
        if accepted.as_ref().is_some_and(|fields| !fields.contains(&true)) {
            return Stats::new(store.discarded::<T>(), self.0.clone());
        }
        let block = Arc::new(Block::<T>::new(store.shards()));
        store.imports().fill_block(&self.0.prefix, &*block);
        contents.blocks.push(BlockSlot {
            type_id: id,
            block: block.clone(),
            accepted,
        });
        Stats::new(block, self.0.clone())
    }

    /// Response-code statistics (`upstream_rq_2xx`, `internal.upstream_rq_200`, ...) below `prefix` in this scope;
    /// `prefix` is empty or ends with a dot.
    pub fn codes(&self, prefix: &str) -> CodeStats {
        let mut contents = lock(&self.0.contents);
        let block = match contents.codes.iter().find(|block| block.prefix() == prefix) {
            Some(block) => block.clone(),
            None => {
                let block = Arc::new(CodeBlock::new(prefix, self.0.store.shards()));
                self.0.store.imports().fill_codes(&self.0.prefix, &block);
                contents.codes.push(block.clone());
                block
            }
        };
        CodeStats::new(block, self.0.clone())
    }

    /// The counter `name` below the prefix, created at the first call. Keep the handle where it is used often.
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(self.0.dynamic(name, Kind::Counter, None, Stay::Always), self.0.clone())
    }

    /// A counter with tags of its own: listed as `name.tag.value...`, with the tags as given and nothing extracted.
    pub fn counter_tagged(&self, name: &str, tags: &[(&str, &str)]) -> Counter {
        Counter::new(self.tagged(name, Kind::Counter, tags, Stay::Always), self.0.clone())
    }

    /// The gauge `name` below the prefix.
    pub fn gauge(&self, name: &str) -> Gauge {
        Gauge::new(self.0.dynamic(name, Kind::Gauge, None, Stay::Always), self.0.clone())
    }

    /// A gauge with tags of its own; see [`Scope::counter_tagged`].
    pub fn gauge_tagged(&self, name: &str, tags: &[(&str, &str)]) -> Gauge {
        Gauge::new(self.tagged(name, Kind::Gauge, tags, Stay::Always), self.0.clone())
    }

    /// The histogram `name` below the prefix; the unit is that of the first call.
    pub fn histogram(&self, name: &str, unit: Unit) -> Histogram {
        Histogram::new(
            self.0.dynamic(name, Kind::Histogram(unit), None, Stay::Always),
            self.0.clone(),
        )
    }

    /// A histogram with tags of its own; see [`Scope::counter_tagged`].
    pub fn histogram_tagged(&self, name: &str, unit: Unit, tags: &[(&str, &str)]) -> Histogram {
        Histogram::new(
            self.tagged(name, Kind::Histogram(unit), tags, Stay::Always),
            self.0.clone(),
        )
    }

    /// The text readout `name` below the prefix.
    pub fn text_readout(&self, name: &str) -> TextReadout {
        TextReadout::new(
            self.0.dynamic(name, Kind::TextReadout, None, Stay::Always),
            self.0.clone(),
        )
    }

    pub(super) fn tagged(&self, name: &str, kind: Kind, tags: &[(&str, &str)], stay: Stay) -> Arc<Dynamic> {
        let mut full = name.to_owned();
        // An empty value leaves no token behind.
        for token in tags
            .iter()
            .flat_map(|(tag, value)| [tag, value])
            .filter(|t| !t.is_empty())
        {
            full.extend([".", token]);
        }
        let tags = tags.iter().map(|(name, value)| Tag::new(name, value)).collect();
        let extracted_name = format!("{}{name}", self.0.prefix).into();
        self.0
            .dynamic(&full, kind, Some(ExplicitTags { extracted_name, tags }), stay)
    }
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scope({})", self.0.prefix)
    }
}

impl ScopeInner {
    pub(super) fn new(store: Arc<Store>, prefix: Arc<str>, tags: Option<ExplicitTags>) -> Self {
        Self {
            store,
            prefix,
            tags: tags.map(Box::new),
            contents: Mutex::default(),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn explicit_tags(&self) -> Option<&ExplicitTags> {
        self.tags.as_deref()
    }

    // A name that is taken by a statistic of another kind gets an entry of its own, apart by a NUL that is never
    // shown: handles always work, and a reader sees both, as Envoy lists both.
    pub(super) fn dynamic(&self, name: &str, kind: Kind, tags: Option<ExplicitTags>, stay: Stay) -> Arc<Dynamic> {
        let store = &self.store;
        let mut contents = lock(&self.contents);
        let same_kind = |stat: &Dynamic| std::mem::discriminant(&stat.kind()) == std::mem::discriminant(&kind);
        if let Some(stat) = contents.dynamic.get(name).filter(|stat| same_kind(stat)) {
            return stat.clone();
        }
        if !store.config().matcher.accepts(&format!("{}{name}", self.prefix)) {
            return Arc::new(Dynamic::new(kind, store.shards(), None));
        }
        let mut key: Arc<str> = name.into();
        loop {
            match contents.dynamic.entry(key.clone()) {
                Entry::Vacant(slot) => {
                    let stat = Dynamic::new(kind, store.shards(), tags);
                    let stat = match stay {
                        Stay::Always => stat,
                        Stay::WhileUsed => stat.evictable(),
                    };
                    store.imports().fill_dynamic(&self.prefix, name, &stat);
                    return slot.insert(Arc::new(stat)).clone();
                }
                Entry::Occupied(slot) if same_kind(slot.get()) => return slot.get().clone(),
                Entry::Occupied(_) => key = format!("{key}\0").into(),
            }
        }
    }

    /// Counts of response codes.
    pub(super) fn code_blocks(&self) -> Vec<Arc<CodeBlock>> {
        self.contents().codes.clone()
    }

    pub(super) fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        lock(&self.contents)
    }
}

impl Drop for ScopeInner {
    fn drop(&mut self) {
        self.store.forget(&self.prefix);
    }
}

/// Envoy's cleaning of names that come from configuration: no dot at either end, and `:` (with slashes around
/// it) and NUL become underscores. The result ends with a dot unless it is empty.
pub(super) fn sanitized(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = name.strip_prefix('.').unwrap_or(name);
    let mut clean = name.replace("://", "_").replace(":/", "_").replace([':', '\0'], "_");
    if !clean.is_empty() {
        clean.push('.');
    }
    clean
}
