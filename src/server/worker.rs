//! A worker: one thread, one single-threaded runtime, nothing shared but snapshots and atomics.

use std::{
    rc::Rc,
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;

use super::ServerContext;

/// A worker's own state. Lives in an `Rc`; never leaves its thread.
///
/// The control thread has one too (with the last id), so that side calls such as xDS, health checks and
/// rate limit services use the same clusters and pools as traffic does.
pub struct Worker {
    /// 0 to `concurrency` - 1; `concurrency` for the control thread.
    pub id: usize,
    /// The server.
    pub server: Arc<ServerContext>,
}

/// What control tells a worker; kept in order, so that make-before-break holds.
pub enum WorkerMsg {
    /// Runs on the worker, for what has no message of its own.
    Run(Box<dyn FnOnce(&Rc<Worker>) + Send>),
}

/// The mailboxes of all workers, the control thread's last.
#[derive(Default)]
pub struct Mailboxes(OnceLock<Vec<mpsc::UnboundedSender<WorkerMsg>>>);

impl Mailboxes {
    /// Sets the mailboxes once the threads are there; a second call has no effect.
    pub fn open(&self, senders: Vec<mpsc::UnboundedSender<WorkerMsg>>) {
        let _ = self.0.set(senders);
    }

    fn senders(&self) -> &[mpsc::UnboundedSender<WorkerMsg>] {
        self.0.get().map_or(&[], Vec::as_slice)
    }

    /// Sends one message to every worker, the control thread included. A worker that has ended is passed over.
    pub fn broadcast(&self, mut make: impl FnMut() -> WorkerMsg) {
        for sender in self.senders() {
            let _ = sender.send(make());
        }
    }

    /// Sends one message to every worker that carries traffic, with its id.
    pub fn to_traffic(&self, mut make: impl FnMut(usize) -> WorkerMsg) {
        if let Some((_, traffic)) = self.senders().split_last() {
            for (id, sender) in traffic.iter().enumerate() {
                let _ = sender.send(make(id));
            }
        }
    }

    /// Runs `f` on the control thread, with its worker.
    pub fn run_on_control(&self, f: impl FnOnce(&Rc<Worker>) + Send + 'static) {
        if let Some(control) = self.senders().last() {
            let _ = control.send(WorkerMsg::Run(Box::new(f)));
        }
    }
}
