//! The life of the process: context, workers, start and stop.

mod context;
mod worker;

pub use context::ServerContext;
pub use worker::{Mailboxes, Worker, WorkerMsg};
