//! The life of the process: context, workers, start and stop.

mod context;
mod cpus;
mod drain;
pub mod hot_restart;
mod internal;
pub mod log;
pub mod overload;
mod run;
mod stats;
mod worker;

pub use context::{ServerContext, State};
pub use drain::{Drain, DrainSignal, HTTP_RAMP};
pub use hot_restart::HotRestart;
pub use internal::{InternalConnection, InternalListeners, Passthrough};
pub use overload::OverloadManager;
pub use run::{StartError, run};
pub use stats::{ConstantStats, Memory, OverloadStats, ServerStats, memory};
pub use worker::{Mailboxes, Worker, WorkerMsg};
