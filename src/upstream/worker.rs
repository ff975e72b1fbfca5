//! All clusters as one worker sees them.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::{Cluster, Host, WorkerCluster, on_demand::Waiting};
use crate::server::{InternalListeners, ServerContext};

/// What control tells workers about clusters.
pub enum ClusterMsg {
    /// A cluster became warm, or replaces the one of its name.
    Set(Arc<Cluster>),
    /// A cluster is gone: finish what is in flight, close its connections.
    Remove(Arc<str>),
    /// A cluster that was asked for is not there: who waits for it waits no longer.
    Missing(Arc<str>),
    /// Hosts of a cluster were removed: drain their pools.
    HostsRemoved(Arc<Cluster>),
    /// Hosts came or went in a cluster with `close_connections_on_host_set_change`: all its connections end.
    HostSetChanged(Arc<Cluster>),
    /// A host turned unhealthy: close its connections as they become idle.
    HostFailed(Arc<Cluster>, Arc<Host>),
}

struct Entry {
    cluster: Arc<Cluster>,
    inflated: Option<Rc<WorkerCluster>>,
}

/// A worker's clusters by name. A cluster costs a map entry until the first request to it.
#[derive(Clone)]
pub struct WorkerClusters(Rc<Inner>);

/// How many names are waited for before those are forgotten that nobody waits for any more.
const MAX_WAITING: usize = 1024;

struct Inner {
    server: Arc<ServerContext>,
    internal: Rc<InternalListeners>,
    map: RefCell<HashMap<Arc<str>, Entry, RandomState>>,
    /// Requests that wait for clusters on demand.
    waiting: RefCell<HashMap<Box<str>, Waiting, RandomState>>,
}

/// The worker's clusters, for a cluster among them.
#[derive(Clone, Default)]
pub struct ClustersRef(Weak<Inner>);

impl ClustersRef {
    /// None once the worker has ended.
    pub fn upgrade(&self) -> Option<WorkerClusters> {
        self.0.upgrade().map(WorkerClusters)
    }
}

impl WorkerClusters {
    /// Starts with what the manager has now. Call it once the mailboxes are open: what comes later comes as messages.
    pub fn new(server: &Arc<ServerContext>, internal: &Rc<InternalListeners>) -> Self {
        let clusters = Self(Rc::new(Inner {
            server: server.clone(),
            internal: internal.clone(),
            map: RefCell::default(),
            waiting: RefCell::default(),
        }));
        for cluster in server.clusters.active() {
            clusters.handle(ClusterMsg::Set(cluster));
        }
        clusters
    }

    /// The cluster of this name, inflated at first use.
    pub fn get(&self, name: &str) -> Option<Rc<WorkerCluster>> {
        let mut map = self.0.map.borrow_mut();
        let entry = map.get_mut(name)?;
        let inflate = || {
            let (server, internal) = (self.0.server.clone(), self.0.internal.clone());
            WorkerCluster::new(entry.cluster.clone(), server, internal, self.downgrade())
        };
        Some(entry.inflated.get_or_insert_with(inflate).clone())
    }

    /// Waits for a cluster of this name: true when it is there, false when there is none.
    pub(super) fn arrival(&self, name: &str) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        if self.0.map.borrow().contains_key(name) {
            // Only a receiver that is gone would not take it.
            let _ = sender.send(true);
            return receiver;
        }
        let mut waiting = self.0.waiting.borrow_mut();
        if waiting.len() >= MAX_WAITING {
            // Of those that the control plane never spoke of.
            waiting.retain(|_, w| w.iter().any(|w| !w.is_closed()));
        }
        let waiting = waiting.entry(name.into()).or_default();
        waiting.retain(|w| !w.is_closed());
        waiting.push(sender);
        receiver
    }

    fn arrived(&self, name: &str, found: bool) {
        let waiting = self.0.waiting.borrow_mut().remove(name);
        for sender in waiting.into_iter().flatten() {
            // Who gave up waiting does not mind.
            let _ = sender.send(found);
        }
    }

    fn downgrade(&self) -> ClustersRef {
        ClustersRef(Rc::downgrade(&self.0))
    }

    /// A cluster that is used, unless another one has taken its name.
    fn inflated(&self, cluster: &Arc<Cluster>) -> Option<Rc<WorkerCluster>> {
        let map = self.0.map.borrow();
        let entry = map.get(&cluster.info.name);
        entry.filter(|e| Arc::ptr_eq(&e.cluster, cluster))?.inflated.clone()
    }

    /// Applies a message from control.
    pub fn handle(&self, msg: ClusterMsg) {
        let old = match msg {
            ClusterMsg::Set(cluster) => {
                let mut map = self.0.map.borrow_mut();
                if map
                    .get(&cluster.info.name)
                    .is_some_and(|e| Arc::ptr_eq(&e.cluster, &cluster))
                {
                    return;
                }
                let name = cluster.info.name.clone();
                let entry = Entry {
                    cluster,
                    inflated: None,
                };
                let old = map.insert(name.clone(), entry);
                drop(map);
                self.arrived(&name, true);
                old
            }
            ClusterMsg::Missing(name) => {
                self.arrived(&name, false);
                return;
            }
            ClusterMsg::Remove(name) => self.0.map.borrow_mut().remove(&name),
            ClusterMsg::HostsRemoved(cluster) => {
                if let Some(inflated) = self.inflated(&cluster) {
                    inflated.sweep();
                }
                return;
            }
            ClusterMsg::HostSetChanged(cluster) => {
                if let Some(inflated) = self.inflated(&cluster) {
                    inflated.drain();
                }
                return;
            }
            ClusterMsg::HostFailed(cluster, host) => {
                if let Some(inflated) = self.inflated(&cluster) {
                    inflated.drain_host(&host);
                }
                return;
            }
        };
        if let Some(old) = old.and_then(|entry| entry.inflated) {
            old.retire();
        }
    }
}
