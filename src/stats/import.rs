//! Values that another process sent (hot restart): they are added to this process's own wherever somebody reads.
//!
//! They live in a shard that no thread of this process writes to. A statistic that is not there yet gets its value
//! when it comes: clusters and workers make theirs when they first need them.

use std::{collections::HashMap, sync::Mutex};

use super::{
    block::{AnyBlock, Kind},
    codes::CodeBlock,
    dynamic::{Dynamic, ExplicitTags},
    evict::Stay,
    lock,
    scope::ScopeInner,
    store::Store,
    tags::Tag,
    transfer::{Number, ScopeValues},
};

/// What came, by scope.
#[derive(Default)]
pub(super) struct Imports {
    /// The shard for it; none when nothing ever comes.
    shard: Option<usize>,
    received: Mutex<Received>,
}

#[derive(Default)]
struct Received {
    scopes: HashMap<String, OfScope>,
    /// Counters were set to zero here: those of the other process stay out.
    no_counters: bool,
}

#[derive(Default)]
struct OfScope {
    counters: HashMap<String, u64>,
    gauges: HashMap<String, u64>,
    codes: HashMap<String, HashMap<u16, u64>>,
}

impl OfScope {
    fn numbers(&mut self, gauge: bool) -> &mut HashMap<String, u64> {
        match gauge {
            true => &mut self.gauges,
            false => &mut self.counters,
        }
    }
}

impl Imports {
    pub(super) fn new(shard: Option<usize>) -> Self {
        Self {
            shard,
            received: Mutex::default(),
        }
    }

    /// Gives a new block what came for its fields.
    pub(super) fn fill_block(&self, prefix: &str, block: &dyn AnyBlock) {
        let Some(shard) = self.shard else { return };
        let received = lock(&self.received);
        let Some(scope) = received.scopes.get(prefix) else {
            return;
        };
        for (index, desc) in block.descs().iter().enumerate() {
            let value = match desc.kind {
                Kind::Counter => scope.counters.get(desc.name),
                Kind::Gauge if !desc.never_import => scope.gauges.get(desc.name),
                _ => None,
            };
            if let Some(value) = value {
                block.put(shard, index, *value);
            }
        }
    }

    /// The same for a statistic that is made when it is first used.
    pub(super) fn fill_dynamic(&self, prefix: &str, name: &str, stat: &Dynamic) {
        let Some(shard) = self.shard else { return };
        let received = lock(&self.received);
        let Some(scope) = received.scopes.get(prefix) else {
            return;
        };
        let value = match stat.kind() {
            Kind::Counter => scope.counters.get(name),
            Kind::Gauge => scope.gauges.get(name),
            _ => None,
        };
        if let Some(value) = value {
            stat.put(shard, *value);
        }
    }

    /// The same for response codes.
    pub(super) fn fill_codes(&self, prefix: &str, block: &CodeBlock) {
        let Some(shard) = self.shard else { return };
        let received = lock(&self.received);
        let scope = received.scopes.get(prefix);
        for (key, count) in scope.and_then(|s| s.codes.get(block.prefix())).into_iter().flatten() {
            block.put(shard, *key, *count);
        }
    }

    /// Counters are set to zero: what the other process counted is forgotten too.
    pub(super) fn forget_counters(&self) {
        let mut received = lock(&self.received);
        received.no_counters = true;
        for scope in received.scopes.values_mut() {
            scope.counters.clear();
            scope.codes.clear();
        }
    }

    /// Keeps what came for what comes later. What stays out is taken away.
    fn keep(&self, values: &mut ScopeValues) {
        let mut received = lock(&self.received);
        if received.no_counters {
            values.numbers.retain(|n| n.gauge);
            values.codes.clear();
        }
        let scope = received.scopes.entry(values.prefix.clone()).or_default();
        for number in &values.numbers {
            scope.numbers(number.gauge).insert(number.name.clone(), number.value);
        }
        for codes in &values.codes {
            let counts = scope.codes.entry(codes.prefix.clone()).or_default();
            counts.extend(
                codes
                    .keys
                    .iter()
                    .map(|key| *key as u16)
                    .zip(codes.counts.iter().copied()),
            );
        }
    }
}

impl Store {
    /// Takes values of another process. Without [`Store::with_imports`] they are dropped.
    pub fn import(&self, mut values: ScopeValues) {
        let Some(shard) = self.imports().shard else { return };
        // First kept, then put: what is made in between finds them kept, and putting them twice does no harm.
        self.imports().keep(&mut values);
        let Some(scope) = self.existing(&values.prefix) else {
            return;
        };
        let contents = scope.contents();
        for codes in &values.codes {
            if let Some(block) = contents.codes.iter().find(|block| *block.prefix() == *codes.prefix) {
                for (key, count) in codes.keys.iter().zip(&codes.counts) {
                    block.put(shard, *key as u16, *count);
                }
            }
        }
        drop(contents);
        for number in &values.numbers {
            match &number.dynamic {
                Some(_) => import_dynamic(&scope, shard, number),
                None => import_field(&scope, shard, number),
            }
        }
    }

    /// The other process is gone: it has nothing open any more. What it counted stays.
    pub fn end_import(&self) {
        let Some(shard) = self.imports().shard else { return };
        for scope in lock(&self.imports().received).scopes.values_mut() {
            scope.gauges.clear();
        }
        for scope in self.scopes() {
            let contents = scope.contents();
            contents.blocks.iter().for_each(|slot| slot.block.clear_gauges(shard));
            contents.dynamic.values().for_each(|stat| stat.clear_gauge(shard));
        }
    }
}

fn import_field(scope: &ScopeInner, shard: usize, number: &Number) {
    let kind = match number.gauge {
        true => Kind::Gauge,
        false => Kind::Counter,
    };
    for slot in &scope.contents().blocks {
        let mut fields = slot.block.descs().iter().enumerate();
        if let Some((index, _)) = fields.find(|(_, d)| d.kind == kind && d.name == number.name && !d.never_import) {
            slot.block.put(shard, index, number.value);
            return;
        }
    }
}

/// Unlike fields, dynamic statistics are made for what came: nobody knows whether they will ever be used again.
fn import_dynamic(scope: &std::sync::Arc<ScopeInner>, shard: usize, number: &Number) {
    let given = number.dynamic.as_ref().filter(|d| !d.extracted_name.is_empty());
    let tags = given.map(|given| ExplicitTags {
        extracted_name: given.extracted_name.as_str().into(),
        tags: given
            .tags
            .chunks_exact(2)
            .filter_map(|pair| Some(Tag::new(pair.first()?, pair.get(1)?)))
            .collect(),
    });
    let kind = match number.gauge {
        true => Kind::Gauge,
        false => Kind::Counter,
    };
    scope
        .dynamic(&number.name, kind, tags, Stay::Always)
        .put(shard, number.value);
}

#[cfg(test)]
mod tests;
