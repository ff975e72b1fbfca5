//! The life of the process: context, workers, start and stop.

mod context;
mod cpus;
mod drain;
pub mod log;
mod run;
mod worker;

pub use context::ServerContext;
pub use drain::{Drain, DrainSignal};
pub use run::{StartError, run};
pub use worker::{Mailboxes, Worker, WorkerMsg};
