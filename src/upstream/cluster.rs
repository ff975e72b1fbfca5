//! A cluster on one worker: its load balancer and its pools.

use std::{rc::Rc, sync::Arc};

use super::{Cluster, ClusterInfo, ConnectFailure, Host, HttpPool, LbContext, PoolOptions, TcpLease};

/// A cluster as a worker uses it. Made at the first request; never leaves its thread.
pub struct WorkerCluster {
    /// The configuration.
    pub info: Arc<ClusterInfo>,
    cluster: Arc<Cluster>,
}

impl WorkerCluster {
    pub(super) fn new(cluster: Arc<Cluster>) -> Rc<Self> {
        Rc::new(Self {
            info: cluster.info.clone(),
            cluster,
        })
    }

    /// Picks a host. None: `no_healthy_upstream`.
    pub fn pick(&self, cx: &LbContext<'_>) -> Option<Arc<Host>> {
        let _ = cx;
        self.cluster.hosts.load().priorities.first()?.hosts.first().cloned()
    }

    /// The pool of HTTP connections to a host.
    pub fn http(self: &Rc<Self>, host: &Arc<Host>, options: &PoolOptions) -> HttpPool {
        let _ = (host, options);
        HttpPool {}
    }

    /// Opens a connection of its own to a host, counted and limited like pooled ones: TCP proxying and upgrades.
    pub async fn tcp(self: &Rc<Self>, host: &Arc<Host>, options: &PoolOptions) -> Result<TcpLease, ConnectFailure> {
        let _ = (host, options);
        Err(ConnectFailure::Local {
            reason: "not built yet".into(),
        })
    }

    pub(super) fn drain(&self) {}
}
