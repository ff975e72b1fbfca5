//! Statistics with Envoy's names, tags and texts, at the cost of an atomic add.
//!
//! - [`stats_block!`](crate::stats_block) defines a struct of counters, gauges and histograms; [`Scope::block`] puts
//!   it under a prefix ("cluster.foo."). Workers write with [`Stats::local`]; names exist only while somebody reads.
//! - [`Scope::counter`] and its like are for names known only at run time; the handle is kept, the name is not
//!   looked up again. [`CodeStats`] counts response codes.
//! - The [`Store`] holds the scopes by name. A scope is listed while anybody holds it or a handle into it.
//! - Readers ([`render`], sinks) sum the shards and never make a writer wait.

mod block;
mod cell;
mod codes;
mod config;
mod dynamic;
mod evict;
pub mod histogram;
mod import;
mod matcher;
mod recorder;
pub mod render;
mod scope;
mod shard;
mod store;
pub mod tags;
mod transfer;
mod walk;

pub use block::{CellRef, Kind, StatDesc, Stats, StatsBlock};
pub use cell::{CounterCell, GaugeCell, GaugeValue};
pub use codes::{Charge, CodeStats};
pub use config::StatsConfig;
pub use dynamic::{Counter, Gauge, Histogram, TextReadout};
pub use histogram::{HistogramCell, Unit};
pub use recorder::recorder;
pub use scope::Scope;
pub use shard::{current_shard, enter_shard};
pub use store::Store;
pub use transfer::{CodeCounts, DynamicTags, Exporter, Number, ScopeValues};

/// Locks; a panic elsewhere leaves nothing half done behind these locks, so it does not spread.
fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
