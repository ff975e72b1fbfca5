//! Response-code statistics: `upstream_rq_completed`, `upstream_rq_2xx`, `upstream_rq_200`, and the same under
//! `internal.`, `external.` and `canary.`.
//!
//! Envoy increments six counters by name for each response. Here a response increments one cell, found by its code
//! and category in a table of a few slots, and a reader derives the rest: classes are sums of codes, and the plain
//! names are internal plus external.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::scope::ScopeInner;
use super::shard::{Sharded, add};

/// Response-code statistics of one scope and prefix. Cheap to clone; keeps its scope listed.
#[derive(Clone)]
pub struct CodeStats {
    block: Arc<CodeBlock>,
    _scope: Arc<ScopeInner>,
}

/// How a response counts beside its code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// The request was internal (`x-envoy-internal`): `internal.` instead of `external.`.
    pub internal: bool,
    /// The upstream host is a canary: `canary.` too.
    pub canary: bool,
    /// The plain names count only `upstream_rq_completed` (Envoy's `suppress_grpc_request_failure_code_stats`).
    pub completed_only: bool,
}

impl CodeStats {
    pub(super) fn new(block: Arc<CodeBlock>, scope: Arc<ScopeInner>) -> Self {
        Self { block, _scope: scope }
    }

    /// Charges a response: the plain names and `internal.` or `external.`.
    #[inline]
    pub fn charge(&self, code: u16, internal: bool) {
        let category = if internal {
            Category::Internal
        } else {
            Category::External
        };
        self.block.cells.local().inc(category, code);
    }

    /// Charges a response with everything that shapes it.
    pub fn charge_as(&self, code: u16, charge: Charge) {
        let cells = self.block.cells.local();
        cells.inc(
            match (charge.internal, charge.completed_only) {
                (false, false) => Category::External,
                (true, false) => Category::Internal,
                (false, true) => Category::ExternalOnly,
                (true, true) => Category::InternalOnly,
            },
            code,
        );
        if charge.canary {
            cells.inc(Category::Canary, code);
        }
    }

    /// Charges the plain names alone (virtual clusters, routes with a `stat_prefix`, zones).
    #[inline]
    pub fn charge_basic(&self, code: u16) {
        self.block.cells.local().inc(Category::Basic, code);
    }

    /// The same, but only in `upstream_rq_completed` when `completed_only`.
    #[inline]
    pub fn charge_basic_as(&self, code: u16, completed_only: bool) {
        let category = match completed_only {
            true => Category::BasicOnly,
            false => Category::Basic,
        };
        self.block.cells.local().inc(category, code);
    }
}

/// Where a response is counted; discriminants are part of a slot's key.
#[derive(Debug, Clone, Copy)]
enum Category {
    Basic,
    External,
    Internal,
    Canary,
    /// As `External`, but among the plain names only in `upstream_rq_completed`.
    ExternalOnly,
    /// As `Internal`, likewise.
    InternalOnly,
    /// As `Basic`, but only in `upstream_rq_completed`.
    BasicOnly,
}

const CATEGORIES: [Category; 7] = [
    Category::Basic,
    Category::External,
    Category::Internal,
    Category::Canary,
    Category::ExternalOnly,
    Category::InternalOnly,
    Category::BasicOnly,
];

/// Stands for every code that is no HTTP status (`upstream_rq_unknown`).
const UNKNOWN: u16 = 999;

/// Enough for what one upstream usually answers; more go on in a further table.
const SLOTS: usize = 8;

#[derive(Default)]
struct Slot {
    /// 1 + category * 1000 + code; 0 while free. Slots are taken in order and never given back.
    key: AtomicU16,
    count: AtomicU64,
}

/// One shard's counts.
#[derive(Default)]
struct CodeCells {
    slots: [Slot; SLOTS],
    more: OnceLock<Box<CodeCells>>,
}

impl CodeCells {
    #[inline]
    fn inc(&self, category: Category, code: u16) {
        let code = if (100..600).contains(&code) { code } else { UNKNOWN };
        add(self.slot(1 + category as u16 * 1000 + code), 1);
    }

    /// The count of a key, in a slot of its own from now on.
    #[inline]
    fn slot(&self, key: u16) -> &AtomicU64 {
        let mut cells = self;
        loop {
            for slot in &cells.slots {
                let mut found = slot.key.load(Relaxed);
                if found == 0 {
                    // Another thread of the shared shard may be faster, perhaps with the same key.
                    found = slot
                        .key
                        .compare_exchange(0, key, Relaxed, Relaxed)
                        .map_or_else(|theirs| theirs, |_| key);
                }
                if found == key {
                    return &slot.count;
                }
            }
            cells = cells.more.get_or_init(Box::default);
        }
    }

    fn each(&self, f: &mut dyn FnMut(Category, u16, u64)) {
        self.each_key(&mut |key, count| {
            if let Some(category) = CATEGORIES.get(usize::from(key / 1000)) {
                f(*category, key % 1000, count);
            }
        });
    }

    fn each_key(&self, f: &mut dyn FnMut(u16, u64)) {
        for slot in &self.slots {
            let (key, count) = (slot.key.load(Relaxed), slot.count.load(Relaxed));
            if let Some(key) = key.checked_sub(1)
                && count > 0
            {
                f(key, count);
            }
        }
        if let Some(more) = self.more.get() {
            more.each_key(f);
        }
    }

    fn reset(&self) {
        self.slots.iter().for_each(|slot| slot.count.store(0, Relaxed));
        if let Some(more) = self.more.get() {
            more.reset();
        }
    }
}

/// The counts of one prefix in one scope.
pub(super) struct CodeBlock {
    prefix: Box<str>,
    cells: Sharded<CodeCells>,
}

impl CodeBlock {
    pub(super) fn new(prefix: &str, shards: usize) -> Self {
        Self {
            prefix: prefix.into(),
            cells: Sharded::new(shards),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn reset(&self) {
        self.cells.touched().for_each(CodeCells::reset);
    }

    /// Every count by category and code, as one number that both generations of a hot restart understand.
    pub(super) fn keys(&self) -> BTreeMap<u16, u64> {
        let mut all = BTreeMap::new();
        for cells in self.cells.touched() {
            cells.each_key(&mut |key, count| *all.entry(key).or_insert(0) += count);
        }
        all
    }

    /// Replaces a shard's count of a key.
    pub(super) fn put(&self, shard: usize, key: u16, count: u64) {
        if usize::from(key / 1000) < CATEGORIES.len() {
            self.cells.at(shard).slot(key + 1).store(count, Relaxed);
        }
    }

    /// Every name that occurred, below the scope's prefix, with its count.
    pub(super) fn entries(&self) -> BTreeMap<String, u64> {
        let mut out = BTreeMap::new();
        let mut add = |group: &str, what: &str, count: u64| {
            *out.entry(format!("{}{group}upstream_rq_{what}", self.prefix))
                .or_insert(0) += count;
        };
        let mut add_code = |group: &str, code: u16, count: u64, completed_only: bool| {
            add(group, "completed", count);
            match code {
                _ if completed_only => {}
                UNKNOWN => add(group, "unknown", count),
                code => {
                    add(group, &format!("{}xx", code / 100), count);
                    add(group, &code.to_string(), count);
                }
            }
        };
        for cells in self.cells.touched() {
            cells.each(&mut |category, code, count| {
                let (group, only) = match category {
                    Category::Basic => ("", false),
                    Category::External => ("external.", false),
                    Category::Internal => ("internal.", false),
                    Category::Canary => ("canary.", false),
                    Category::ExternalOnly => ("external.", true),
                    Category::InternalOnly => ("internal.", true),
                    Category::BasicOnly => ("", true),
                };
                add_code(group, code, count, only && group.is_empty());
                if !group.is_empty() && group != "canary." {
                    add_code("", code, count, only);
                }
            });
        }
        out
    }
}
