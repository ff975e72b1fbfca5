//! The cluster manager: owns all clusters, warms new and changed ones, tells workers. Control side only.

use std::sync::{Arc, Mutex};

use xds_protos::{envoy::config::cluster::v3::Cluster as Proto, google::protobuf::Any};

use super::Cluster;
use crate::{config::ConfigError, server::ServerContext};

/// All clusters. Every method may be called from any control-side thread.
#[derive(Default)]
pub struct ClusterManager {
    clusters: Mutex<std::collections::HashMap<Arc<str>, Arc<Cluster>>>,
}

impl ClusterManager {
    /// Adds a cluster or replaces the one of its name; the old one serves until the new one is warm.
    /// Returns whether anything changed: a cluster whose bytes are the same is passed over.
    ///
    /// `version` is the xDS version for `/config_dump`, empty for static clusters.
    pub fn add_or_update(
        &self,
        proto: Proto,
        version: &str,
        any: Any,
        server: &Arc<ServerContext>,
    ) -> Result<bool, ConfigError> {
        let _ = (proto, version, any, server);
        Err(ConfigError::new("", "clusters are not built yet"))
    }

    /// Removes a cluster: workers finish what is in flight and close its connections. Static clusters stay.
    /// Returns whether there was one.
    pub fn remove(&self, name: &str, server: &Arc<ServerContext>) -> bool {
        let _ = (name, server);
        false
    }

    /// Whether an active (warmed) cluster has this name.
    pub fn is_warm(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether a cluster of this name is known, warm or warming: what references to it are checked against.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The active cluster of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.clusters
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// All active clusters, in the order of their names.
    pub fn active(&self) -> Vec<Arc<Cluster>> {
        Vec::new()
    }

    /// Waits until every primary cluster (all but those whose endpoints come over xDS from other clusters) is
    /// initialised. Then the xDS client may start.
    pub async fn wait_primary(&self) {}

    /// Waits until every cluster that was added so far is initialised.
    pub async fn wait_initialized(&self) {}
}
