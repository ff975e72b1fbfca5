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

mod handle;
mod handler;
pub mod resources;
mod single;

pub use handle::{Handle, Names, WatchGuard};
pub use handler::{FetchFailure, Rejected, Resource, ResourceHandler, Update};
pub use resources::rds;
pub use single::Change;
