//! Reading: the statistics of a scope one by one, whatever they are made of.

use std::sync::Arc;

use super::block::Kind;
use super::dynamic::Dynamic;
use super::histogram::Bins;
use super::scope::{BlockSlot, ScopeInner};

/// A statistic while it is read.
#[derive(Clone)]
pub(super) enum Stat<'a> {
    /// A field of a block.
    Field {
        scope: &'a ScopeInner,
        slot: &'a BlockSlot,
        index: usize,
    },
    /// A derived response-code counter.
    Code {
        scope: &'a ScopeInner,
        name: &'a str,
        count: u64,
    },
    /// A dynamic statistic.
    Dynamic {
        scope: &'a ScopeInner,
        name: &'a str,
        stat: &'a Arc<Dynamic>,
    },
}

impl Stat<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Stat::Field { slot, index, .. } => slot.block.descs()[*index].kind,
            Stat::Code { .. } => Kind::Counter,
            Stat::Dynamic { stat, .. } => stat.kind(),
        }
    }

    pub(super) fn scope(&self) -> &ScopeInner {
        match self {
            Stat::Field { scope, .. } | Stat::Code { scope, .. } | Stat::Dynamic { scope, .. } => scope,
        }
    }

    /// The name below the scope's prefix.
    pub(super) fn name(&self) -> &str {
        match self {
            Stat::Field { slot, index, .. } => slot.block.descs()[*index].name,
            Stat::Code { name, .. } => name,
            Stat::Dynamic { name, .. } => name.trim_end_matches('\0'),
        }
    }

    pub(super) fn full_name(&self) -> String {
        format!("{}{}", self.scope().prefix(), self.name())
    }

    pub(super) fn hidden(&self) -> bool {
        matches!(self, Stat::Field { slot, index, .. } if slot.block.descs()[*index].hidden)
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

    /// Whether it exists as far as a reader can tell.
    pub(super) fn listed(&self) -> bool {
        match self {
            Stat::Field { slot, index, .. } => {
                slot.accepted.as_ref().is_none_or(|accepted| accepted[*index])
                    && (!slot.block.descs()[*index].lazy || self.used())
            }
            _ => true,
        }
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

    /// A text readout's text.
    pub(super) fn text(&self) -> String {
        match self {
            Stat::Dynamic { stat, .. } => stat.text(),
            _ => String::new(),
        }
    }
}

/// Calls `f` with every statistic of a scope, in no particular order. The scope's lock is not held meanwhile.
pub(super) fn stats_of(scope: &ScopeInner, f: &mut dyn FnMut(Stat<'_>)) {
    let (blocks, codes, dynamic) = {
        let contents = scope.contents();
        (
            contents.blocks.clone(),
            contents.codes.clone(),
            contents.dynamic.clone(),
        )
    };
    for slot in &blocks {
        (0..slot.block.descs().len()).for_each(|index| f(Stat::Field { scope, slot, index }));
    }
    for codes in &codes {
        codes
            .entries()
            .iter()
            .for_each(|(name, &count)| f(Stat::Code { scope, name, count }));
    }
    for (name, stat) in &dynamic {
        f(Stat::Dynamic { scope, name, stat });
    }
}
