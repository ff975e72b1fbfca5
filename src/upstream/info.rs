//! What a cluster is, immutable after its configuration was built.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    ClusterMsg, ClusterStats, DroppedCounts, HealthChecks, Host, HostSet, HostSets, OptionalStats, Provided,
    ResourceManager, ResourcePriority, TransportSockets, UpstreamNetworkFilters,
    circuit::CircuitBreakers,
    config::{ConnectOptions, DropOverload, HttpOptions, LbConfig, LbPolicy, Preconnect},
    dynamic_forward_proxy::DynamicForwardProxy,
    lb::{NotByZone, ZoneKeys, ZoneRouting},
    outlier::OutlierDetector,
    stats::MembershipStats,
    subset::Subsets,
};
use crate::{
    http::stream_info::Metadata,
    runtime::Snapshot,
    server::{OverloadManager, ServerContext, WorkerMsg},
    stats::{CodeStats, Scope, Stats},
};

/// What control publishes to the workers: the configuration and the present hosts.
pub struct Cluster {
    /// Immutable; a changed configuration is a new `Cluster`.
    pub info: Arc<ClusterInfo>,
    /// The present hosts; replaced as a whole.
    pub hosts: ArcSwap<HostSets>,
    /// `health_checks`
    pub(super) checks: Option<Box<HealthChecks>>,
    /// Health of hosts changed, and the snapshot is going to.
    stale: AtomicBool,
}

impl Cluster {
    /// A cluster without hosts.
    pub(super) fn new(info: ClusterInfo, checks: Option<HealthChecks>) -> Self {
        Self {
            info: Arc::new(info),
            hosts: ArcSwap::default(),
            checks: checks.map(Box::new),
            stale: AtomicBool::new(false),
        }
    }

    /// A snapshot of these hosts, with the subsets they form.
    pub(super) fn host_sets(
        &self,
        priorities: Vec<Arc<HostSet>>,
        drop_overload: Option<DropOverload>,
        server: &ServerContext,
    ) -> HostSets {
        let before = self.hosts.load();
        let same_first = match (before.priorities.first(), priorities.first()) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        let known = same_first.then(|| before.zone.clone());
        self.host_sets_with_zone(priorities, drop_overload, known, server)
    }

    /// The same where it may be `known` how zones are used.
    fn host_sets_with_zone(
        &self,
        priorities: Vec<Arc<HostSet>>,
        drop_overload: Option<DropOverload>,
        known: Option<Option<ZoneRouting>>,
        server: &ServerContext,
    ) -> HostSets {
        let panic_threshold = self.info.panic_threshold(server);
        let mut sets = HostSets::new(priorities, panic_threshold, drop_overload);
        let zone = |first: Option<&Arc<HostSet>>| first.and_then(|set| self.zone_routing(set, server)?.ok());
        sets.zone = known.unwrap_or_else(|| sets.priorities.first().and_then(|set| self.count_zones(set, server)));
        if let Some(config) = &self.info.lb.subsets {
            sets.subsets = Some(Subsets::new(config, &sets.priorities, panic_threshold, &zone));
        }
        sets
    }

    /// How the hosts of the first priority are shared among zones: only where there is a local cluster to compare with.
    fn count_zones(&self, first: &HostSet, server: &ServerContext) -> Option<ZoneRouting> {
        let plan = self.zone_routing(first, server)?;
        // Envoy's threads each compute it, the main one too, and count so. Subsets do not count.
        let stats = self.info.stats.local();
        let threads = server.mailboxes.threads() as u64;
        stats.lb_recalculate_zone_structures.add(threads);
        match plan {
            Err(NotByZone::LocalClusterNotOk) => stats.lb_local_cluster_not_ok.add(threads),
            Err(NotByZone::ClusterTooSmall) => stats.lb_zone_cluster_too_small.add(threads),
            Err(NotByZone::OneZone) | Ok(_) => {}
        }
        plan.ok()
    }

    /// The plan for these hosts, or why there is none.
    fn zone_routing(&self, first: &HostSet, server: &ServerContext) -> Option<Result<ZoneRouting, NotByZone>> {
        let lb = &self.info.lb;
        let local = server
            .clusters
            .local_cluster()
            .filter(|l| l.info.name != self.info.name)?;
        if lb.policy.uses_hash() || matches!(lb.policy, LbPolicy::ClusterProvided) {
            return None;
        }
        let known = &server.runtime.known;
        let mut config = lb.zone.clone();
        config.min_cluster_size = known.zone_min_cluster_size.integer(config.min_cluster_size);
        match known.zone_force_local_min_size.integer(0) {
            0 => {}
            forced => config.force_local_zone = Some(u32::try_from(forced).unwrap_or(u32::MAX)),
        }
        let keys = ZoneKeys {
            enabled: known.zone_enabled.clone(),
            panic_threshold: known.healthy_panic_threshold.clone(),
        };
        let sets = local.hosts.load();
        let first_local = sets.priorities.first()?;
        Some(ZoneRouting::new(&config, first, first_local, lb.panic_threshold, keys))
    }

    /// Compares the zones anew after the local cluster changed.
    pub(super) fn local_cluster_changed(&self, server: &ServerContext) {
        self.hosts
            .rcu(|sets| self.host_sets_with_zone(sets.priorities.clone(), sets.drop_overload.clone(), None, server));
    }

    /// Sorts the present hosts anew soon, after the health of some changed: changes that come together are one.
    /// For tasks of the control thread.
    pub(super) fn refresh_health_soon(self: &Arc<Self>, server: &Arc<ServerContext>) {
        if self.stale.swap(true, Ordering::AcqRel) {
            return;
        }
        let (cluster, server) = (self.clone(), server.clone());
        tokio::task::spawn_local(async move { cluster.refresh_health(&server) });
    }

    /// Sorts the present hosts anew after the health of some changed; workers see it at their next pick.
    pub(super) fn refresh_health(&self, server: &ServerContext) {
        self.stale.store(false, Ordering::Release);
        let before = self.hosts.rcu(|sets| {
            let priorities = sets.priorities.iter().map(HostSet::refreshed).collect();
            self.host_sets(priorities, sets.drop_overload.clone(), server)
        });
        self.keep_tables(&before);
        self.hosts_changed(server);
    }

    /// Weights of present hosts changed: workers settle anew whose turn it is.
    pub(super) fn weights_changed(&self, server: &ServerContext) {
        let before = self.hosts.rcu(|sets| {
            let priorities = sets.priorities.iter().map(|p| Arc::new(HostSet::clone(p))).collect();
            self.host_sets(priorities, sets.drop_overload.clone(), server)
        });
        self.keep_tables(&before);
        self.hosts_changed(server);
    }

    /// A host turned unhealthy: its present connections end, another one may do better.
    pub(super) fn host_failed(self: &Arc<Self>, host: &Arc<Host>, server: &ServerContext) {
        server
            .mailboxes
            .broadcast(|| WorkerMsg::Cluster(ClusterMsg::HostFailed(self.clone(), host.clone())));
    }

    /// Takes out a host that discovery removed before, and that is not well any more.
    pub(super) fn remove_host(self: &Arc<Self>, host: &Arc<Host>, server: &Arc<ServerContext>) {
        host.remove();
        self.hosts.rcu(|sets| {
            let priorities = sets.priorities.iter().map(|p| p.without(host)).collect();
            self.host_sets(priorities, sets.drop_overload.clone(), server)
        });
        self.hosts_changed(server);
        self.info.membership.local().membership_change.inc();
        if let Some(outlier) = &self.info.outlier {
            outlier.removed(std::slice::from_ref(host));
        }
        if let Some(checks) = &self.checks {
            checks.update(&[], std::slice::from_ref(host), self, server);
        }
        server
            .mailboxes
            .broadcast(|| WorkerMsg::Cluster(ClusterMsg::HostsRemoved(self.clone())));
    }

    /// Replaces the snapshot, and counts what changes with it.
    pub(super) fn publish(&self, sets: HostSets, server: &ServerContext) {
        let before = self.hosts.swap(Arc::new(sets));
        if self.info.lb.subsets.is_some() {
            self.count_subsets(&before, server);
        }
        self.keep_tables(&before);
        self.hosts_changed(server);
    }

    fn hosts_changed(&self, server: &ServerContext) {
        self.count_hosts();
        server.clusters.hosts_changed(self, server);
    }

    /// Makes hash tables where those of the snapshot before were in use, so that no worker has to.
    fn keep_tables(&self, before: &HostSets) {
        if before.tables.are_used() {
            self.hosts.load().make_tables(&self.info.lb);
        }
    }

    /// Envoy makes the subsets once for each of its threads, the main one included, and counts them so.
    fn count_subsets(&self, before: &HostSets, server: &ServerContext) {
        let now = self.hosts.load();
        let none = Subsets::default();
        let (before, now) = (
            before.subsets.as_ref().unwrap_or(&none),
            now.subsets.as_ref().unwrap_or(&none),
        );
        let threads = server.mailboxes.threads() as u64;
        let stats = self.info.stats.local();
        stats.lb_subsets_created.add(now.new_since(before) as u64 * threads);
        stats.lb_subsets_removed.add(before.new_since(now) as u64 * threads);
        stats.lb_subsets_active.set(now.len() as u64 * threads);
        self.info
            .scope
            .gauge("lb_subsets_single_host_per_subset_duplicate")
            .set(now.duplicates);
    }

    /// What policies that hash tell of the last priority's table, which need not be made for it.
    fn count_tables(&self, sets: &HostSets) {
        if !self.info.lb.policy.uses_hash() {
            return;
        }
        let shares = sets.shares(&self.info.lb);
        let set = |name: &str, value: u64| self.info.scope.gauge(name).set(value);
        match &self.info.lb.policy {
            LbPolicy::Maglev(_) => {
                set("maglev_lb.min_entries_per_host", shares.min);
                set("maglev_lb.max_entries_per_host", shares.max);
            }
            _ => {
                set("ring_hash_lb.size", shares.size);
                set("ring_hash_lb.min_hashes_per_host", shares.min);
                set("ring_hash_lb.max_hashes_per_host", shares.max);
            }
        }
    }

    /// The gauges of the present hosts.
    pub(super) fn count_hosts(&self) {
        let sets = self.hosts.load();
        let stats = self.info.membership.local();
        let count = |of: fn(&HostSet) -> usize| sets.priorities.iter().map(|p| of(p) as u64).sum();
        stats.membership_total.set(count(|p| p.hosts.len()));
        stats.membership_healthy.set(count(|p| p.healthy.len()));
        stats.membership_degraded.set(count(|p| p.degraded.len()));
        stats.membership_excluded.set(count(|p| p.excluded.len()));
        self.count_tables(&sets);
    }
}

/// The configuration of a cluster as workers use it.
pub struct ClusterInfo {
    /// The overload manager, if it has a say in new connections.
    pub overload: Option<Arc<OverloadManager>>,
    /// `name`
    pub name: Arc<str>,
    /// `alt_stat_name`, or the name: statistics and `%UPSTREAM_CLUSTER%` use it.
    pub observability_name: Arc<str>,
    /// `cluster.<observability_name>.`
    pub scope: Scope,
    /// All statistics with fixed names.
    pub stats: Stats<ClusterStats>,
    /// `upstream_rq_<code>`, `upstream_rq_2xx`, `internal.`, `external.`, `canary.`
    pub codes: CodeStats,
    /// The same of responses that were followed by a retry: `retry.upstream_rq_<code>`.
    pub retry_codes: CodeStats,
    /// `connect_timeout`, 5 s
    pub connect_timeout: Duration,
    /// `per_connection_buffer_limit_bytes`, 1 MiB
    pub per_connection_buffer_limit: u32,
    /// `metadata`
    pub metadata: Arc<Metadata>,
    /// Whether it came from a control plane.
    pub added_via_api: bool,
    /// HTTP version and its options.
    pub http: Arc<HttpOptions>,
    /// How sockets are opened.
    pub connect: Arc<ConnectOptions>,
    /// `preconnect_policy`
    pub preconnect: Preconnect,
    /// `connection_pool_per_downstream_connection`
    pub pool_per_downstream: bool,
    /// `common_lb_config.close_connections_on_host_set_change`
    pub close_on_host_set_change: bool,
    /// `close_connections_on_host_health_failure`: TCP connections end with their host's health.
    pub close_on_health_failure: bool,
    /// `filters`
    pub network_filters: UpstreamNetworkFilters,
    /// What is spoken below HTTP.
    pub sockets: TransportSockets,
    /// Load balancing.
    pub lb: Arc<LbConfig>,
    /// `eds_cluster_config.service_name` or the name, for EDS clusters; empty for others.
    pub eds_service_name: Arc<str>,
    /// Set for clusters whose type brings its own balancer along.
    pub provided: Option<Provided>,
    /// `outlier_detection`
    pub outlier: Option<Box<OutlierDetector>>,
    /// What control counts of the hosts.
    pub membership: Stats<MembershipStats>,
    /// `ignore_health_on_host_removal`: hosts that discovery removes go at once, however well they are.
    pub ignore_health_on_host_removal: bool,
    /// `track_cluster_stats`
    pub optional_stats: Option<Box<OptionalStats>>,
    /// Requests that reached no host, for load reports.
    pub drops: DroppedCounts,
    pub(super) resources: CircuitBreakers,
}

impl ClusterInfo {
    /// `healthy_panic_threshold` in percent, which the runtime may override.
    pub(super) fn panic_threshold(&self, server: &ServerContext) -> f64 {
        match server.runtime.known.healthy_panic_threshold.integer(u64::MAX) {
            u64::MAX => self.lb.panic_threshold,
            percent => percent.min(100) as f64,
        }
    }

    /// Takes the circuit breakers' limits of the runtime.
    pub(super) fn apply_runtime(&self, snapshot: &Snapshot) {
        for priority in [ResourcePriority::Default, ResourcePriority::High] {
            let resources = self.resources(priority);
            resources.apply_runtime(&self.name, priority, snapshot);
        }
    }

    /// How hosts are found by the names of requests, where they are.
    pub fn dynamic_forward_proxy(&self) -> Option<&DynamicForwardProxy> {
        match &self.provided {
            Some(Provided::DynamicForwardProxy(by_name)) => Some(by_name),
            _ => None,
        }
    }

    /// The port of hosts that are named without one: by what is spoken to them.
    pub fn default_port(&self) -> u16 {
        if self.sockets.is_secure() { 443 } else { 80 }
    }

    /// The circuit breakers of a priority.
    #[inline]
    pub fn resources(&self, priority: ResourcePriority) -> &Arc<ResourceManager> {
        self.resources.of(priority, &self.stats, &self.scope)
    }
}
