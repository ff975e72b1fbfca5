//! All clusters as one worker sees them.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use foldhash::fast::RandomState;

use super::{Cluster, Host, WorkerCluster};
use crate::server::ServerContext;

/// What control tells workers about clusters.
pub enum ClusterMsg {
    /// A cluster became warm, or replaces the one of its name.
    Set(Arc<Cluster>),
    /// A cluster is gone: finish what is in flight, close its connections.
    Remove(Arc<str>),
    /// Hosts of a cluster were removed: drain their pools.
    HostsRemoved(Arc<Cluster>),
    /// A host turned unhealthy: close its connections as they become idle.
    HostFailed(Arc<Cluster>, Arc<Host>),
}

struct Entry {
    cluster: Arc<Cluster>,
    inflated: Option<Rc<WorkerCluster>>,
}

/// A worker's clusters by name. A cluster costs a map entry until the first request to it.
pub struct WorkerClusters {
    server: Arc<ServerContext>,
    map: RefCell<HashMap<Arc<str>, Entry, RandomState>>,
}

impl WorkerClusters {
    /// Starts with what the manager has now. Call it once the mailboxes are open: what comes later comes as messages.
    pub fn new(server: &Arc<ServerContext>) -> Self {
        let clusters = Self {
            server: server.clone(),
            map: RefCell::default(),
        };
        for cluster in server.clusters.active() {
            clusters.handle(ClusterMsg::Set(cluster));
        }
        clusters
    }

    /// The cluster of this name, inflated at first use.
    pub fn get(&self, name: &str) -> Option<Rc<WorkerCluster>> {
        let mut map = self.map.borrow_mut();
        let entry = map.get_mut(name)?;
        let inflate = || WorkerCluster::new(entry.cluster.clone(), self.server.clone());
        Some(entry.inflated.get_or_insert_with(inflate).clone())
    }

    /// Applies a message from control.
    pub fn handle(&self, msg: ClusterMsg) {
        let old = match msg {
            ClusterMsg::Set(cluster) => {
                let mut map = self.map.borrow_mut();
                if map
                    .get(&cluster.info.name)
                    .is_some_and(|e| Arc::ptr_eq(&e.cluster, &cluster))
                {
                    return;
                }
                let name = cluster.info.name.clone();
                map.insert(
                    name,
                    Entry {
                        cluster,
                        inflated: None,
                    },
                )
            }
            ClusterMsg::Remove(name) => self.map.borrow_mut().remove(&name),
            ClusterMsg::HostsRemoved(cluster) => {
                let map = self.map.borrow();
                let entry = map
                    .get(&cluster.info.name)
                    .filter(|e| Arc::ptr_eq(&e.cluster, &cluster));
                if let Some(inflated) = entry.and_then(|e| e.inflated.as_ref()) {
                    inflated.sweep();
                }
                return;
            }
            ClusterMsg::HostFailed(cluster, host) => {
                let map = self.map.borrow();
                let entry = map
                    .get(&cluster.info.name)
                    .filter(|e| Arc::ptr_eq(&e.cluster, &cluster));
                if let Some(inflated) = entry.and_then(|e| e.inflated.as_ref()) {
                    inflated.drain_host(&host);
                }
                return;
            }
        };
        if let Some(old) = old.and_then(|entry| entry.inflated) {
            old.drain();
        }
    }
}
