//! The life of the process: context, workers, start and stop.

mod context;
mod drain;
mod worker;

pub use drain::{Drain, DrainSignal};
pub use context::ServerContext;
pub use worker::{Mailboxes, Worker, WorkerMsg};
