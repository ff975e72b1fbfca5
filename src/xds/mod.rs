//! Speaking xDS: transports, subscription state, and the handlers of each resource type.
//!
//! ```text
//! Handle::watch (any thread)
//!   -> command -> the task of one stream on the control thread (ADS: one for all types)
//!   -> state::{sotw, delta}: what to ask, what a response means, ACK or NACK
//!   -> transport::{grpc, rest, file}
//!   -> ResourceHandler::update: CDS, LDS, RDS, ... apply what came and say what they rejected
//! ```
//!
//! A dead control plane changes nothing for traffic: handlers keep what they applied last.

mod backoff;
mod close_log;
mod handle;
mod handler;
mod inventory;
mod load_stats;
mod mux;
pub mod node;
mod open;
mod rate_limit;
pub mod resources;
mod service;
mod single;
mod source;
pub mod start;
mod state;
mod stats;
mod transport;
mod watch;
mod watch_map;
mod wire;

pub use handle::{Handle, Names, Pause, WatchGuard};
pub use handler::{FetchFailure, Rejected, Resource, ResourceHandler, Update};
pub use inventory::{Failure, Inventory, ResourceState, timestamp};
pub use open::open;
pub use resources::rds;
pub use single::Change;
pub use transport::file::{FileChanges, FileWatcher};

#[cfg(test)]
mod tests;
