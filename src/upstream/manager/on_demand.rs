//! On-demand clusters: asked for by name when a request first needs them.
//!
//! A worker says what it misses; the subscription runs here. The cluster, when it is warm, or that there is none,
//! comes back through the worker's mailbox like every other change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use xds_protos::envoy::config::core::v3::ConfigSource;

use super::ClusterManager;
use crate::{
    server::{ServerContext, WorkerMsg},
    upstream::ClusterMsg,
    xds::{WatchGuard, resources::odcds},
};

/// The clusters that were asked for.
#[derive(Default)]
pub(super) struct Demands(
    Mutex<HashMap<Arc<str>, Demand>>,
    /// The last one that was missing: it keeps the stream, and its statistics, for those to come.
    Mutex<Option<Demand>>,
);

struct Demand {
    /// Keeps the cluster up to date.
    _guard: WatchGuard,
    /// The first answer was taken in.
    answered: bool,
}

impl ClusterManager {
    /// Asks `source` for a cluster. Workers hear of it by [`ClusterMsg::Set`] or [`ClusterMsg::Missing`]. Requests
    /// for the same cluster are asked once. Control side.
    pub(in crate::upstream) fn demand(&self, name: &Arc<str>, source: &ConfigSource, server: &Arc<ServerContext>) {
        if self.is_warm(name) {
            // It is on its way to the worker that asked.
            return;
        }
        let mut demands = self.demands.0.lock().unwrap_or_else(PoisonError::into_inner);
        if demands.get(name).is_some_and(|d| !d.answered || self.contains(name)) {
            return;
        }
        // One that went or was missing is asked for again: with a new subscription.
        drop(demands.remove(name));
        let (guard, mut target) = odcds::subscribe(name, source, server);
        let demand = Demand {
            _guard: guard,
            answered: false,
        };
        demands.insert(name.clone(), demand);
        let (name, server) = (name.clone(), server.clone());
        tokio::task::spawn_local(async move {
            // An ended sender means that nothing more will come.
            let _ = target.ready.wait_for(|ready| *ready).await;
            server.clusters.answered(&name, &server);
        });
    }

    /// The control plane has said what it has to say of a cluster, or was silent too long.
    fn answered(&self, name: &Arc<str>, server: &ServerContext) {
        let missing = {
            let mut demands = self.demands.0.lock().unwrap_or_else(PoisonError::into_inner);
            if self.contains(name) {
                if let Some(demand) = demands.get_mut(name) {
                    demand.answered = true;
                }
                return;
            }
            // Clients may name clusters: those that do not exist must not stay.
            demands.remove(name)
        };
        let mut last = self.demands.1.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, missing);
        drop(last);
        drop(before);
        server
            .mailboxes
            .broadcast(|| WorkerMsg::Cluster(ClusterMsg::Missing(name.clone())));
    }
}
