//! Reading: a snapshot of what is listed, and its statistics one by one, whatever they are made of.

use std::collections::HashMap;
use std::sync::Arc;

use super::block::{Kind, StatDesc};
use super::dynamic::Dynamic;
use super::histogram::{Bins, Unit};
use super::scope::{BlockSlot, ScopeInner};
use super::store::Store;

/// A statistic while it is read.
#[derive(Clone, Copy)]
pub(super) enum Stat<'a> {
    /// A field of a block.
    Field { slot: &'a BlockSlot, index: usize },
    /// A derived response-code counter.
    Code { name: &'a str, count: u64 },
    /// A dynamic statistic.
    Dynamic { name: &'a str, stat: &'a Arc<Dynamic> },
}

/// A value as read.
pub(super) enum Reading {
    /// Of a counter or gauge.
    Number(u64),
    /// Of a text readout.
    Text(String),
    /// Of a histogram: everything since start, and the last interval.
    Histogram { unit: Unit, total: Bins, interval: Bins },
}

impl<'a> Stat<'a> {
    fn desc(&self) -> Option<&'static StatDesc> {
        match self {
            Stat::Field { slot, index } => slot.block.descs().get(*index),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Stat::Field { slot, index } => slot.block.descs()[*index].kind,
            Stat::Code { .. } => Kind::Counter,
            Stat::Dynamic { stat, .. } => stat.kind(),
        }
    }

    /// The name below the scope's prefix.
    pub(super) fn name(&self) -> &'a str {
        match self {
            Stat::Field { slot, index } => slot.block.descs()[*index].name,
            Stat::Code { name, .. } => name,
            Stat::Dynamic { name, .. } => name.trim_end_matches('\0'),
        }
    }

    pub(super) fn hidden(&self) -> bool {
        self.desc().is_some_and(|desc| desc.hidden)
    }

    /// Whether it was ever written.
    pub(super) fn used(&self) -> bool {
        match (self, self.kind()) {
            (Stat::Field { slot, .. }, _) if slot.block.is_untouched() => false,
            (Stat::Field { slot, index, .. }, Kind::Gauge) => slot.block.gauge(*index).used,
            (Stat::Dynamic { stat, .. }, Kind::Gauge) => stat.gauge().used,
            (_, Kind::Histogram(_)) => !self.histogram().0.is_empty(),
            (Stat::Dynamic { stat, .. }, Kind::TextReadout) => !stat.text().is_empty(),
            _ => self.number() > 0,
        }
    }

    /// Whether `usedonly` shows it, if it was written at all: histograms count as used once an interval with values of
    /// theirs has ended, as in Envoy, which merges them only then.
    pub(super) fn flushed(&self) -> bool {
        match (self, self.kind()) {
            (Stat::Field { slot, index }, Kind::Histogram(_)) => slot.block.flushed(*index),
            (Stat::Dynamic { stat, .. }, _) => stat.flushed(),
            _ => true,
        }
    }

    /// Whether it exists as far as a reader can tell.
    pub(super) fn listed(&self) -> bool {
        self.listed_if(|| self.used())
    }

    /// The same, if it is known (or cheap to tell) whether it was ever written.
    pub(super) fn listed_if(&self, used: impl FnOnce() -> bool) -> bool {
        let Stat::Field { slot, index } = self else { return true };
        slot.accepted.as_ref().is_none_or(|accepted| accepted[*index]) && (!slot.block.descs()[*index].lazy || used())
    }

    /// The value of a counter or gauge, the number of values of a histogram.
    pub(super) fn number(&self) -> u64 {
        match (self, self.kind()) {
            (Stat::Field { slot, index, .. }, Kind::Counter) => slot.block.counter(*index),
            (Stat::Field { slot, index, .. }, Kind::Gauge) => slot.block.gauge(*index).value,
            (Stat::Code { count, .. }, _) => *count,
            (Stat::Dynamic { stat, .. }, Kind::Counter) => stat.counter(),
            (Stat::Dynamic { stat, .. }, Kind::Gauge) => stat.gauge().value,
            (_, Kind::Histogram(_)) => self.histogram().0.count(),
            (_, Kind::TextReadout) => 0,
        }
    }

    /// All values of a histogram, and those of the last interval.
    pub(super) fn histogram(&self) -> (Bins, Bins) {
        match self {
            Stat::Field { slot, index, .. } => slot.block.histogram(*index),
            Stat::Dynamic { stat, .. } => stat.histogram(),
            Stat::Code { .. } => Default::default(),
        }
    }

    /// A histogram's unit.
    pub(super) fn unit(&self) -> Unit {
        if let Kind::Histogram(unit) = self.kind() {
            unit
        } else {
            Unit::Unspecified
        }
    }

    /// A text readout's text.
    pub(super) fn text(&self) -> String {
        if let Stat::Dynamic { stat, .. } = self {
            stat.text()
        } else {
            String::new()
        }
    }

    pub(super) fn read(&self) -> Reading {
        match (self, self.kind()) {
            (_, Kind::Histogram(unit)) => {
                let (total, interval) = self.histogram();
                Reading::Histogram { unit, total, interval }
            }
            (_, Kind::TextReadout) => Reading::Text(self.text()),
            _ => Reading::Number(self.number()),
        }
    }
}

/// What is printed together, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    TextReadouts,
    /// Counters and gauges.
    Numbers,
    Histograms,
}

impl Phase {
    fn holds(self, kind: Kind) -> bool {
        self == match kind {
            Kind::TextReadout => Phase::TextReadouts,
            Kind::Counter | Kind::Gauge => Phase::Numbers,
            Kind::Histogram(_) => Phase::Histograms,
        }
    }
}

/// A snapshot of one scope: what there is, not its values (but for derived counters).
pub(super) struct ScopeContents {
    pub(super) scope: Arc<ScopeInner>,
    pub(super) blocks: Vec<BlockSlot>,
    pub(super) codes: Vec<Vec<(String, u64)>>,
    pub(super) dynamic: Vec<(Arc<str>, Arc<Dynamic>)>,
}

impl ScopeContents {
    pub(super) fn new(scope: Arc<ScopeInner>) -> Self {
        let (blocks, codes, dynamic) = {
            let contents = scope.contents();
            let dynamic = contents
                .dynamic
                .iter()
                .map(|(name, stat)| (name.clone(), stat.clone()))
                .collect();
            (contents.blocks.clone(), contents.codes.clone(), dynamic)
        };
        let codes = codes
            .iter()
            .map(|codes| codes.entries().into_iter().collect())
            .collect();
        Self {
            scope,
            blocks,
            codes,
            dynamic,
        }
    }

    /// Every statistic of the scope, in no particular order.
    pub(super) fn stats(&self) -> impl Iterator<Item = Stat<'_>> {
        let fields = self
            .blocks
            .iter()
            .flat_map(|slot| (0..slot.block.descs().len()).map(move |index| Stat::Field { slot, index }));
        fields.chain(self.without_blocks())
    }

    /// Every statistic that is not a field of a block.
    pub(super) fn without_blocks(&self) -> impl Iterator<Item = Stat<'_>> {
        let codes = self
            .codes
            .iter()
            .flatten()
            .map(|(name, count)| Stat::Code { name, count: *count });
        codes.chain(self.dynamic.iter().map(|(name, stat)| Stat::Dynamic { name, stat }))
    }
}

/// A snapshot of what is listed.
pub(super) struct Contents(pub(super) Vec<ScopeContents>);

/// Takes the snapshot.
pub(super) fn contents(store: &Store) -> Contents {
    Contents(store.scopes().into_iter().map(ScopeContents::new).collect())
}

/// A sorted list of names below a scope's prefix.
pub(super) enum ListSource<'a> {
    /// Fields of a block, in the order of their names.
    Block {
        prefix: &'a str,
        slot: &'a BlockSlot,
        order: Arc<[u16]>,
    },
    /// Derived counters.
    Codes {
        prefix: &'a str,
        entries: &'a [(String, u64)],
    },
    /// Dynamic statistics.
    Dynamic { prefix: &'a str, stats: Vec<Stat<'a>> },
}

impl<'a> ListSource<'a> {
    /// The statistic at a position.
    pub(super) fn stat(&self, position: usize) -> Option<Stat<'a>> {
        match self {
            ListSource::Block { slot, order, .. } => order.get(position).map(|&index| Stat::Field {
                slot,
                index: usize::from(index),
            }),
            ListSource::Codes { entries, .. } => entries
                .get(position)
                .map(|(name, count)| Stat::Code { name, count: *count }),
            ListSource::Dynamic { stats, .. } => stats.get(position).copied(),
        }
    }

    pub(super) fn prefix(&self) -> &'a str {
        match self {
            ListSource::Block { prefix, .. }
            | ListSource::Codes { prefix, .. }
            | ListSource::Dynamic { prefix, .. } => prefix,
        }
    }
}

impl Contents {
    /// The lists of one phase, scope by scope.
    pub(super) fn sources(&self, phase: Phase, used_only: bool) -> Vec<ListSource<'_>> {
        let mut orders: HashMap<*const StatDesc, Arc<[u16]>> = HashMap::new();
        let mut sources = Vec::new();
        for contents in &self.0 {
            let prefix = contents.scope.prefix();
            for slot in &contents.blocks {
                if used_only && slot.block.is_untouched() {
                    continue;
                }
                let descs = slot.block.descs();
                let order = orders.entry(descs.as_ptr()).or_insert_with(|| order_of(descs, phase));
                if !order.is_empty() {
                    sources.push(ListSource::Block {
                        prefix,
                        slot,
                        order: order.clone(),
                    });
                }
            }
            if phase == Phase::Numbers {
                sources.extend(
                    contents
                        .codes
                        .iter()
                        .map(|entries| ListSource::Codes { prefix, entries }),
                );
            }
            let dynamic = contents.dynamic.iter().map(|(name, stat)| Stat::Dynamic { name, stat });
            let stats: Vec<_> = dynamic.filter(|stat| phase.holds(stat.kind())).collect();
            if !stats.is_empty() {
                sources.push(ListSource::Dynamic { prefix, stats });
            }
        }
        sources
    }
}

fn order_of(descs: &[StatDesc], phase: Phase) -> Arc<[u16]> {
    let mut order: Vec<u16> = (0..descs.len() as u16)
        .filter(|&i| phase.holds(descs[usize::from(i)].kind))
        .collect();
    order.sort_by_key(|&index| descs[usize::from(index)].name);
    order.into()
}
