//! A worker: one thread, one single-threaded runtime, nothing shared but snapshots and atomics.

use std::{
    rc::Rc,
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;

use super::{InternalListeners, ServerContext};
use crate::{
    listener::{ListenerMsg, WorkerListeners},
    upstream::{ClusterMsg, WorkerClusters},
};

/// A worker's own state. Lives in an `Rc`; never leaves its thread.
///
/// The control thread has one too (with the last id), so that side calls such as xDS, health checks and
/// rate limit services use the same clusters and pools as traffic does.
pub struct Worker {
    /// 0 to `concurrency` - 1; `concurrency` for the control thread.
    pub id: usize,
    /// The server.
    pub server: Arc<ServerContext>,
    /// Listeners that accept on this worker; none on the control thread.
    pub listeners: WorkerListeners,
    /// Listeners within this process, for connections of this worker.
    pub internal: Rc<InternalListeners>,
    /// Clusters, with this worker's pools.
    pub clusters: WorkerClusters,
}

impl Worker {
    /// A worker that has the clusters published so far and nothing to do yet. The mailboxes must be open by then.
    pub fn new(id: usize, server: Arc<ServerContext>) -> Rc<Self> {
        let internal = Rc::new(InternalListeners::new(server.internal_buffer.unwrap_or_default()));
        Rc::new(Self {
            id,
            clusters: WorkerClusters::new(&server, &internal),
            internal,
            server,
            listeners: WorkerListeners::default(),
        })
    }

    /// Carries out one message.
    pub fn handle(self: &Rc<Self>, message: WorkerMsg) {
        match message {
            WorkerMsg::Listener(message) => self.listeners.handle(message, self),
            WorkerMsg::Cluster(message) => self.clusters.handle(message),
            WorkerMsg::Run(f) => f(self),
        }
    }

    /// Carries out messages until the senders are gone.
    pub async fn serve(self: &Rc<Self>, mut mailbox: mpsc::UnboundedReceiver<WorkerMsg>) {
        while let Some(message) = mailbox.recv().await {
            self.handle(message);
        }
    }
}

/// Something to run on a worker's thread.
pub type Task = Box<dyn FnOnce(&Rc<Worker>) + Send>;

/// What control tells a worker; kept in order, so that make-before-break holds.
pub enum WorkerMsg {
    /// About listeners.
    Listener(ListenerMsg),
    /// A cluster came, changed or went.
    Cluster(ClusterMsg),
    /// Runs on the worker, for what has no message of its own.
    Run(Task),
}

/// The mailboxes of all workers, the control thread's last.
#[derive(Default)]
pub struct Mailboxes(OnceLock<Vec<mpsc::UnboundedSender<WorkerMsg>>>);

impl Mailboxes {
    /// Sets the mailboxes once the threads are there; a second call has no effect.
    pub fn open(&self, senders: Vec<mpsc::UnboundedSender<WorkerMsg>>) {
        let _ = self.0.set(senders);
    }

    /// How many threads there are, the control thread included.
    pub fn threads(&self) -> usize {
        self.senders().len()
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

    /// Sends a message to one worker.
    pub fn to_worker(&self, id: usize, message: WorkerMsg) {
        if let Some(worker) = self.senders().get(id) {
            let _ = worker.send(message);
        }
    }

    /// Runs `f` on the control thread, with its worker.
    pub fn run_on_control(&self, f: impl FnOnce(&Rc<Worker>) + Send + 'static) {
        if let Some(control) = self.senders().last() {
            let _ = control.send(WorkerMsg::Run(Box::new(f)));
        }
    }
}
