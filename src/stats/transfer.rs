//! Statistics on their way to another process (hot restart): what changed since they were last asked for.
//!
//! Values are totals, not increments: the other process keeps them apart from its own, so that a lost message loses
//! nothing and one that comes twice does no harm. Histograms and text readouts do not travel, as in Envoy.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use prost::Message;

use super::{block::Kind, store::Store, walk::ScopeContents, walk::Stat};

/// Values of one scope.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeValues {
    /// Its prefix, with the dot.
    #[prost(string, tag = "1")]
    pub prefix: String,
    /// Counters and gauges.
    #[prost(message, repeated, tag = "2")]
    pub numbers: Vec<Number>,
    /// Counts of responses by code.
    #[prost(message, repeated, tag = "3")]
    pub codes: Vec<CodeCounts>,
}

/// A counter or gauge.
#[derive(Clone, PartialEq, Message)]
pub struct Number {
    /// Name below the prefix.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(uint64, tag = "2")]
    pub value: u64,
    /// It is a gauge.
    #[prost(bool, tag = "3")]
    pub gauge: bool,
    /// It is made when it is first used, by this name and with these tags.
    #[prost(message, optional, tag = "4")]
    pub dynamic: Option<DynamicTags>,
}

/// Tags that a dynamic statistic was made with.
#[derive(Clone, PartialEq, Message)]
pub struct DynamicTags {
    /// The name without its tags; empty when tags are extracted from the name.
    #[prost(string, tag = "1")]
    pub extracted_name: String,
    /// Name and value, one after the other.
    #[prost(string, repeated, tag = "2")]
    pub tags: Vec<String>,
}

/// Counts of responses below one prefix within a scope.
#[derive(Clone, PartialEq, Message)]
pub struct CodeCounts {
    /// The prefix within the scope.
    #[prost(string, tag = "1")]
    pub prefix: String,
    /// Categories and codes, as numbers.
    #[prost(uint32, repeated, tag = "2")]
    pub keys: Vec<u32>,
    /// A count for each of them.
    #[prost(uint64, repeated, tag = "3")]
    pub counts: Vec<u64>,
}

/// Remembers what was sent.
#[derive(Default)]
pub struct Exporter {
    hasher: RandomState,
    /// By hash of the name: two names of one hash would at worst be sent too often or too seldom.
    sent: HashMap<u64, u64>,
}

impl Exporter {
    /// Calls `each` with every scope that has values which changed, and about how many bytes they take.
    pub fn changed(&mut self, store: &Store, mut each: impl FnMut(ScopeValues, usize)) {
        for scope in store.scopes() {
            let contents = ScopeContents::new(scope);
            let values = self.of_scope(&contents);
            if !values.numbers.is_empty() || !values.codes.is_empty() {
                let size = values.encoded_len();
                each(values, size);
            }
        }
    }

    fn of_scope(&mut self, contents: &ScopeContents) -> ScopeValues {
        let prefix = contents.scope.prefix();
        let mut values = ScopeValues {
            prefix: prefix.to_owned(),
            ..ScopeValues::default()
        };
        for slot in contents.blocks.iter().filter(|slot| !slot.block.is_untouched()) {
            for (index, desc) in slot.block.descs().iter().enumerate() {
                if !desc.never_import {
                    let stat = Stat::Field { slot, index };
                    values.numbers.extend(self.number(prefix, stat, None));
                }
            }
        }
        for (name, stat) in &contents.dynamic {
            // Pressure and scale are states of one process: two of them do not add up.
            if prefix == "overload." && stat.kind() == Kind::Gauge {
                continue;
            }
            let tags = stat
                .tags
                .as_ref()
                .map_or_else(DynamicTags::default, |tags| DynamicTags {
                    extracted_name: tags.extracted_name.to_string(),
                    tags: tags
                        .tags
                        .iter()
                        .flat_map(|t| [t.name.to_string(), t.value.to_string()])
                        .collect(),
                });
            values
                .numbers
                .extend(self.number(prefix, Stat::Dynamic { name, stat }, Some(tags)));
        }
        for block in contents.scope.code_blocks() {
            let mut counts = CodeCounts {
                prefix: block.prefix().to_owned(),
                ..CodeCounts::default()
            };
            for (key, count) in block.keys() {
                if self.is_new((prefix, block.prefix(), key), count) {
                    counts.keys.push(key.into());
                    counts.counts.push(count);
                }
            }
            if !counts.keys.is_empty() {
                values.codes.push(counts);
            }
        }
        values
    }

    fn number(&mut self, prefix: &str, stat: Stat<'_>, dynamic: Option<DynamicTags>) -> Option<Number> {
        let gauge = match stat.kind() {
            Kind::Counter => false,
            Kind::Gauge => true,
            Kind::Histogram(_) | Kind::TextReadout => return None,
        };
        let (name, value) = (stat.name(), stat.number());
        self.is_new((prefix, name, gauge), value).then(|| Number {
            name: name.to_owned(),
            value,
            gauge,
            dynamic,
        })
    }

    /// Whether this value was not sent yet; zero is what the other side has to begin with.
    fn is_new(&mut self, name: impl std::hash::Hash, value: u64) -> bool {
        let key = self.hasher.hash_one(name);
        match value {
            0 => self.sent.remove(&key).is_some(),
            value => self.sent.insert(key, value) != Some(value),
        }
    }
}
