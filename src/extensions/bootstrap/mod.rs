//! Bootstrap extensions.

pub mod workload_discovery;
