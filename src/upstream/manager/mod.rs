//! The cluster manager: owns all clusters, warms new and changed ones, tells workers. Control side only.
//!
//! A new or changed cluster is built, its discovery is started, and it *warms*: it waits for its endpoints and its
//! secrets. Then it is published: workers swap it in, and what they had under its name drains.

mod discovery;
mod dns;
mod on_demand;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use xds_protos::{envoy::config::cluster::v3::Cluster as Proto, google::protobuf::Any, type_url};

use super::{
    Cluster, ClusterMsg, HealthChecks, config, health_check::Running, host_store::HostStore, lb::client_side_wrr,
    outlier, stats::ClusterManagerStats,
};
use crate::{
    access_log::{LogFile, LogFiles},
    config::{BuildCx, ConfigError, ConfigResult, InitTarget},
    runtime::Snapshot,
    server::{ServerContext, WorkerMsg},
    stats::{Stats, Store},
    xds::Pause,
};

use discovery::Source;

/// A cluster as `/config_dump` and `/clusters` show it.
#[derive(Clone)]
pub struct ClusterSnapshot {
    /// The cluster with its present hosts.
    pub cluster: Arc<Cluster>,
    /// The resource as it came.
    pub resource: Any,
    /// Version of the response it came in; empty for static clusters.
    pub version: Arc<str>,
    /// When it was last changed.
    pub last_updated: SystemTime,
    /// From the bootstrap.
    pub is_static: bool,
}

struct Managed {
    snapshot: ClusterSnapshot,
    fingerprint: u64,
    generation: u64,
    /// Endpoints from other clusters' answers: such clusters warm after the xDS client has started.
    secondary: bool,
    /// Keeps health checks going.
    _checks: Running,
    /// Keeps discovery going.
    _source: Source,
    /// While it warms: the control plane is told that it serves when it does.
    warming: Option<Pause>,
}

#[derive(Default)]
struct State {
    active: BTreeMap<Arc<str>, Managed>,
    warming: BTreeMap<Arc<str>, Managed>,
    generation: u64,
}

/// All clusters. Every method may be called from any control-side thread; no worker takes its lock.
pub struct ClusterManager {
    state: Mutex<State>,
    /// Clusters that requests asked for.
    demands: on_demand::Demands,
    /// Ticks whenever a cluster has warmed or gone.
    settled: watch::Sender<()>,
    /// `cluster_manager.outlier_detection.event_log_path`
    ejection_log: OnceLock<Arc<LogFile>>,
    /// `cluster_manager.local_cluster_name`
    local_name: OnceLock<String>,
    /// That cluster, once it is warm.
    local: ArcSwapOption<Cluster>,
    /// `cluster_manager.`
    pub stats: Stats<ClusterManagerStats>,
    pub(super) common: config::Common,
}

impl ClusterManager {
    /// A manager without clusters.
    pub fn new(store: &Arc<Store>) -> Self {
        let stats: Stats<ClusterManagerStats> = store.scope("cluster_manager.").block();
        Self {
            state: Mutex::default(),
            demands: Default::default(),
            settled: watch::Sender::new(()),
            ejection_log: OnceLock::new(),
            local_name: OnceLock::new(),
            local: ArcSwapOption::empty(),
            common: config::Common::default(),
            stats,
        }
    }

    /// Opens the log of ejections that the bootstrap names.
    pub fn open_ejection_log(&self, path: &str, files: &Arc<LogFiles>) -> ConfigResult<()> {
        let file = files.open(path).map_err(|e| {
            ConfigError::new(
                "cluster_manager.outlier_detection.event_log_path",
                format!("unable to open file '{path}': {e}"),
            )
        })?;
        // There is one bootstrap, so there is one log.
        let _ = self.ejection_log.set(file);
        Ok(())
    }

    /// Names the cluster of this proxy and its like, with whose zones those of other clusters are compared.
    pub fn set_local_cluster(&self, name: &str) {
        // There is one bootstrap, so there is one name.
        let _ = self.local_name.set(name.to_owned());
    }

    /// The cluster of this proxy and its like, once it is warm.
    pub(super) fn local_cluster(&self) -> Option<Arc<Cluster>> {
        self.local.load_full()
    }

    /// The hosts of a cluster are others, or are in other health: if it is the local one, all others compare with it.
    pub(super) fn hosts_changed(&self, cluster: &Cluster, server: &ServerContext) {
        let is_local = self.local.load().as_ref().is_some_and(|l| std::ptr::eq(&**l, cluster));
        if is_local {
            self.compare_zones(server);
        }
    }

    /// Zones are compared in the first priority, so the local cluster has no other.
    fn check_local(&self, built: &config::ClusterConfig) -> ConfigResult<()> {
        let name = &*built.info.name;
        let config::Discovery::Static(assignment) = &built.discovery else {
            return Ok(());
        };
        let one_priority = assignment.localities.iter().all(|l| l.priority == 0);
        match self.local_name.get().is_some_and(|local| local == name) && !one_priority {
            true => Err(ConfigError::new(
                "",
                format!("Unexpected non-zero priority for local cluster '{name}'."),
            )),
            false => Ok(()),
        }
    }

    fn compare_zones(&self, server: &ServerContext) {
        let all: Vec<_> = {
            let state = self.state();
            let all = state.active.values().chain(state.warming.values());
            all.map(|m| m.snapshot.cluster.clone()).collect()
        };
        for cluster in all {
            cluster.local_cluster_changed(server);
        }
    }

    /// Where ejections are written.
    pub(super) fn ejection_log(&self) -> Option<&Arc<LogFile>> {
        self.ejection_log.get()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a cluster of the bootstrap. Such a cluster cannot be changed or removed by a control plane.
    pub fn add_static(&self, proto: Proto, resource: Any, server: &Arc<ServerContext>) -> Result<(), ConfigError> {
        let name = proto.name.clone();
        if self.contains(&name) {
            return Err(ConfigError::new(
                "",
                format!("cluster manager: duplicate cluster '{name}'"),
            ));
        }
        self.build(proto, "", resource, true, server)
    }

    /// Adds a cluster or replaces the one of its name; the old one serves until the new one is warm.
    /// Returns whether anything changed: a cluster whose bytes are the same is passed over, and so is one that the
    /// bootstrap defines.
    ///
    /// `version` is the xDS version for `/config_dump`.
    pub fn add_or_update(
        &self,
        proto: Proto,
        version: &str,
        resource: Any,
        server: &Arc<ServerContext>,
    ) -> Result<bool, ConfigError> {
        let fingerprint = fingerprint(&resource);
        {
            let state = self.state();
            let name = proto.name.as_str();
            let known = state.warming.get(name).or_else(|| state.active.get(name));
            if known.is_some_and(|k| k.fingerprint == fingerprint || k.snapshot.is_static) {
                return Ok(false);
            }
        }
        self.build(proto, version, resource, false, server)?;
        Ok(true)
    }

    fn build(
        &self,
        proto: Proto,
        version: &str,
        resource: Any,
        is_static: bool,
        server: &Arc<ServerContext>,
    ) -> Result<(), ConfigError> {
        // Counted whatever comes of it, as in Envoy.
        match self.contains(&proto.name) {
            true => self.stats.local().cluster_modified.inc(),
            false => self.stats.local().cluster_added.inc(),
        }
        let mut cx = BuildCx::new(server);
        let built = config::build(proto, !is_static, &mut cx)?;
        self.check_local(&built)?;
        for ignored in &cx.ignored {
            tracing::warn!(cluster = %built.info.name, field = %ignored.path, "field has no effect: {}", ignored.why);
        }
        let snapshot = server.runtime.snapshot();
        if snapshot.has_circuit_breakers() {
            built.info.apply_runtime(&snapshot);
        }
        let scope = built.info.scope.clone();
        let checks = built.health_check.map(|c| HealthChecks::new(c, &scope));
        let cluster = Arc::new(Cluster::new(built.info, checks));
        outlier::start(&cluster, server);
        client_side_wrr::start(&cluster, server);
        let dynamic = !matches!(built.discovery, config::Discovery::Static(_));
        let store = Arc::new(HostStore::new(cluster.clone(), dynamic));
        let secondary = discovery::is_secondary(&built.discovery);
        let (source, target) = discovery::start(built.discovery, store, server);
        let mut targets = cx.init;
        targets.extend(target);

        let stats = self.stats.local();
        let mut state = self.state();
        state.generation += 1;
        let generation = state.generation;
        let name = cluster.info.name.clone();
        let managed = Managed {
            fingerprint: fingerprint(&resource),
            snapshot: ClusterSnapshot {
                cluster: cluster.clone(),
                resource,
                version: version.into(),
                last_updated: SystemTime::now(),
                is_static,
            },
            generation,
            secondary,
            _checks: Running(cluster.clone()),
            _source: source,
            warming: Some(server.xds.pause(&type_url::<Proto>())),
        };
        managed.snapshot.cluster.info.membership.local().warming_state.set(1);
        state.warming.insert(name.clone(), managed);
        stats.warming_clusters.set(state.warming.len() as u64);
        drop(state);
        if targets.iter().all(|t| *t.ready.borrow()) && cluster.checks.is_none() {
            self.warmed(&name, generation, server);
        } else {
            wait(cluster, generation, targets, server);
        }
        Ok(())
    }

    /// Takes what the runtime says of clusters; called when it changed.
    pub fn apply_runtime(&self, snapshot: &Snapshot) {
        let state = self.state();
        for managed in state.active.values().chain(state.warming.values()) {
            managed.snapshot.cluster.info.apply_runtime(snapshot);
        }
    }

    /// Publishes a warm cluster, unless it was replaced or removed meanwhile.
    fn warmed(&self, name: &str, generation: u64, server: &Arc<ServerContext>) {
        let stats = self.stats.local();
        let replaced = {
            let mut state = self.state();
            if state.warming.get(name).is_none_or(|m| m.generation != generation) {
                return;
            }
            let Some((name, mut managed)) = state.warming.remove_entry(name) else {
                return;
            };
            let pause = managed.warming.take();
            let cluster = managed.snapshot.cluster.clone();
            cluster.info.membership.local().warming_state.set(0);
            let replaced = state.active.insert(name, managed);
            // Under the lock, so that two changes of one cluster reach the workers in their order.
            server
                .mailboxes
                .broadcast(|| WorkerMsg::Cluster(ClusterMsg::Set(cluster.clone())));
            // Whoever sees that none warms any more finds the new one in use.
            stats.warming_clusters.set(state.warming.len() as u64);
            stats.active_clusters.set(state.active.len() as u64);
            (replaced, pause)
        };
        // Ends the old one's discovery, which may lock, and lets CDS go on: not under our lock.
        drop(replaced);
        if self.local_name.get().is_some_and(|l| l == name) {
            self.local.store(self.get(name));
            self.compare_zones(server);
        }
        self.settled.send_replace(());
    }

    /// Removes a cluster: workers finish what is in flight and close its connections. Static clusters stay.
    /// Returns whether there was one.
    pub fn remove(&self, name: &str, server: &Arc<ServerContext>) -> bool {
        let stats = self.stats.local();
        let (active, warming) = {
            let mut state = self.state();
            let is_static = |m: &BTreeMap<Arc<str>, Managed>| m.get(name).is_some_and(|m| m.snapshot.is_static);
            if is_static(&state.active) || is_static(&state.warming) {
                return false;
            }
            let gone = (state.active.remove_entry(name), state.warming.remove(name));
            stats.warming_clusters.set(state.warming.len() as u64);
            stats.active_clusters.set(state.active.len() as u64);
            if let Some((name, _)) = &gone.0 {
                server
                    .mailboxes
                    .broadcast(|| WorkerMsg::Cluster(ClusterMsg::Remove(name.clone())));
            }
            gone
        };
        let removed = active.is_some() || warming.is_some();
        if removed {
            stats.cluster_removed.inc();
            self.settled.send_replace(());
        }
        removed
    }

    /// Whether an active (warmed) cluster has this name.
    pub fn is_warm(&self, name: &str) -> bool {
        self.state().active.contains_key(name)
    }

    /// Whether this very cluster is the active one of its name.
    pub(super) fn is_serving(&self, cluster: &Arc<Cluster>) -> bool {
        let state = self.state();
        let active = state.active.get(&cluster.info.name);
        active.is_some_and(|m| Arc::ptr_eq(&m.snapshot.cluster, cluster))
    }

    /// Whether a cluster of this name is known, warm or warming: what references to it are checked against.
    pub fn contains(&self, name: &str) -> bool {
        let state = self.state();
        state.active.contains_key(name) || state.warming.contains_key(name)
    }

    /// Waits until an active cluster has this name.
    pub async fn wait_warm(&self, name: &str) {
        self.wait_for(|state| state.active.contains_key(name)).await;
    }

    /// The active cluster of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.state().active.get(name).map(|m| m.snapshot.cluster.clone())
    }

    /// All active clusters, in the order of their names.
    pub fn active(&self) -> Vec<Arc<Cluster>> {
        self.state()
            .active
            .values()
            .map(|m| m.snapshot.cluster.clone())
            .collect()
    }

    /// Active and warming clusters with their resources, for `/config_dump`.
    pub fn snapshots(&self) -> (Vec<ClusterSnapshot>, Vec<ClusterSnapshot>) {
        let state = self.state();
        let of = |m: &BTreeMap<Arc<str>, Managed>| m.values().map(|m| m.snapshot.clone()).collect();
        (of(&state.active), of(&state.warming))
    }

    /// Waits until every primary cluster (all but those whose endpoints come over xDS) is initialised. Then the xDS
    /// client may start.
    pub async fn wait_primary(&self) {
        self.wait_for(|state| state.warming.values().all(|m| m.secondary)).await;
    }

    /// Waits until every cluster that was added so far is initialised.
    pub async fn wait_initialized(&self) {
        let last = self.state().generation;
        self.wait_for(|state| state.warming.values().all(|m| m.generation > last))
            .await;
    }

    async fn wait_for(&self, done: impl Fn(&State) -> bool) {
        let mut settled = self.settled.subscribe();
        loop {
            settled.borrow_and_update();
            if done(&self.state()) {
                return;
            }
            // The sender is in self, which is borrowed.
            let _ = settled.changed().await;
        }
    }
}

/// Warms a cluster on the control thread.
fn wait(cluster: Arc<Cluster>, generation: u64, targets: Vec<InitTarget>, server: &Arc<ServerContext>) {
    let server = server.clone();
    server.clone().mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            for mut target in targets {
                // An ended sender means its subscription is gone: nothing more will come of it.
                let _ = target.ready.wait_for(|ready| *ready).await;
            }
            if let Some(checks) = &cluster.checks {
                let mut unchecked = checks.start(&cluster, &server);
                let _ = unchecked.wait_for(|n| *n == 0).await;
                cluster.refresh_health(&server);
            }
            server.clusters.warmed(&cluster.info.name, generation, &server);
        });
    });
}

/// What tells two resources apart: their bytes as they came.
fn fingerprint(resource: &Any) -> u64 {
    twox_hash::XxHash64::oneshot(0, &resource.value)
}

#[cfg(test)]
mod tests;
