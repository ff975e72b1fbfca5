//! A cluster on one worker: its load balancer and its pools.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    convert::Infallible,
    rc::{Rc, Weak},
    sync::Arc,
};

use http::{HeaderMap, Version};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{
    Cluster, ClusterInfo, ClusterStats, ConnectFailure, Host, HostResult, HostSets, HttpPool, LbContext, PoolOptions,
    TcpLease,
    config::HttpProtocol,
    health_check,
    lb::{Balancer, ZonePick, client_side_wrr},
    orca,
    pool::{self, Pool, PoolKey},
    provided::ProvidedLb,
    worker::ClustersRef,
};
use crate::{
    config::FractionalPercent,
    net::Address,
    server::{InternalListeners, ServerContext},
    stats::{CodeStats, Histogram, Unit},
};

type Pools = SmallVec<[Rc<Pool>; 1]>;

/// A cluster as a worker uses it. Made at the first request; never leaves its thread.
pub struct WorkerCluster {
    /// The configuration.
    pub info: Arc<ClusterInfo>,
    cluster: Arc<Cluster>,
    server: Arc<ServerContext>,
    internal: Rc<InternalListeners>,
    pub(super) balancer: RefCell<Balancer>,
    /// By address of the host in memory, which the pools keep alive.
    pub(super) pools: RefCell<HashMap<*const Host, Pools, foldhash::fast::RandomState>>,
    /// Response codes below prefixes that requests bring along: zones, `x-envoy-upstream-alt-stat-name`.
    extra_codes: RefCell<HashMap<Box<str>, ExtraStats, foldhash::fast::RandomState>>,
    /// The balancer that the cluster's type brings along.
    provided: Option<ProvidedLb>,
    /// Hosts of the requests to come, for which connections were opened ahead.
    pub(super) foreseen: RefCell<VecDeque<Arc<Host>>>,
    /// TCP connections that end with their host's health, by the host that is kept with them.
    severable: RefCell<HashMap<*const Host, Severable, foldhash::fast::RandomState>>,
    watchers: RefCell<Vec<Weak<dyn ClusterWatcher>>>,
}

/// Whoever has something with a cluster that is in no pool, and must end with the cluster or with its hosts.
pub trait ClusterWatcher {
    /// Hosts were removed: [`Host::is_removed`] says which.
    fn hosts_removed(&self);
    /// The cluster is gone, or another one has its name.
    fn gone(&self);
}

type Severable = (Option<Arc<Host>>, Vec<oneshot::Sender<Infallible>>);

/// How many prefixes a worker keeps ready; more are looked up each time.
const MAX_EXTRA_STATS: usize = 1024;

/// Statistics of responses below a prefix.
#[derive(Clone)]
pub struct ExtraStats {
    /// `upstream_rq_<code>` and its like.
    pub codes: CodeStats,
    /// `upstream_rq_time`
    pub time: Histogram,
}

/// What `drop_overload` says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It goes on.
    No,
    /// It is one of those that are dropped.
    Some,
    /// All are.
    All,
}

impl WorkerCluster {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        server: Arc<ServerContext>,
        internal: Rc<InternalListeners>,
        clusters: ClustersRef,
    ) -> Rc<Self> {
        let balancer = Balancer::new(cluster.hosts.load_full(), fastrand::Rng::new());
        let provided = cluster.info.provided.as_ref().map(|p| ProvidedLb::new(p, clusters));
        Rc::new(Self {
            info: cluster.info.clone(),
            cluster,
            server,
            internal,
            balancer: RefCell::new(balancer),
            pools: RefCell::default(),
            extra_codes: RefCell::default(),
            provided,
            foreseen: RefCell::default(),
            severable: RefCell::default(),
            watchers: RefCell::default(),
        })
    }

    /// Statistics of responses below a prefix of the cluster's, which ends with a dot.
    pub fn extra_stats(&self, prefix: &str) -> ExtraStats {
        if let Some(found) = self.extra_codes.borrow().get(prefix) {
            return found.clone();
        }
        let stats = ExtraStats {
            codes: self.info.scope.codes(prefix),
            time: self
                .info
                .scope
                .histogram(&format!("{prefix}upstream_rq_time"), Unit::Milliseconds),
        };
        let mut known = self.extra_codes.borrow_mut();
        if known.len() < MAX_EXTRA_STATS {
            known.insert(prefix.into(), stats.clone());
        }
        stats
    }

    /// Whether any host is healthy or degraded besides those of these priorities.
    pub fn has_available_besides(&self, avoided: &[u32]) -> bool {
        if let Some(aggregate) = self.provided.as_ref().and_then(ProvidedLb::as_aggregate) {
            return aggregate.has_available_besides(avoided);
        }
        let sets = self.cluster.hosts.load();
        sets.loads.without(&sets.priorities, avoided).is_some()
    }

    /// Picks a host. None: `no_healthy_upstream`.
    pub fn pick(&self, cx: &LbContext<'_>) -> Option<Arc<Host>> {
        let host = self.choose(cx);
        if host.is_none() {
            self.info.stats.local().upstream_cx_none_healthy.inc();
        }
        host
    }

    /// Picks a host, for whoever counts it if there is none.
    pub(super) fn choose(&self, cx: &LbContext<'_>) -> Option<Arc<Host>> {
        if let Some(provided) = &self.provided {
            return provided.pick(self, cx);
        }
        if self.info.preconnect.predictive > 1.0
            && cx.override_host.is_none()
            && let Some(host) = self.take_foreseen()
        {
            return Some(host);
        }
        let mut balancer = self.balancer.borrow_mut();
        balancer.refresh(&self.cluster.hosts.load());
        let (host, picked) = balancer.pick(&self.info.lb, cx);
        if picked.panics > 0 {
            self.info.stats.local().lb_healthy_panic.add(picked.panics);
        }
        if let Some(zone) = picked.zone {
            count_zone(self.info.stats.local(), zone);
        }
        if self.info.lb.subsets.is_some() {
            let stats = self.info.stats.local();
            stats.lb_subsets_selected.add(picked.subsets.selected);
            stats.lb_subsets_fallback.add(picked.subsets.fallback);
            stats.lb_subsets_fallback_panic.add(picked.subsets.fallback_panic);
        }
        host
    }

    /// The cluster whose connections, limits and checks a picked host has, where that is another one: a member of
    /// this aggregate.
    pub fn owner(&self, host: &Arc<Host>) -> Option<Rc<WorkerCluster>> {
        self.provided.as_ref()?.as_aggregate()?.owner(host)
    }

    /// The priority of a picked host, as retries avoid it.
    pub fn priority_of(&self, host: &Arc<Host>) -> u32 {
        let aggregate = self.provided.as_ref().and_then(ProvidedLb::as_aggregate);
        let among_all = aggregate.and_then(|a| a.priority_of(host));
        among_all.unwrap_or_else(|| host.attributes().priority)
    }

    /// What control publishes of it.
    pub(super) fn published(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(super) fn server(&self) -> &Arc<ServerContext> {
        &self.server
    }

    /// The present hosts.
    pub(super) fn sets(&self) -> Arc<HostSets> {
        self.cluster.hosts.load_full()
    }

    /// Whether these are the present hosts.
    pub(super) fn has_sets(&self, sets: &Arc<HostSets>) -> bool {
        Arc::ptr_eq(&self.cluster.hosts.load(), sets)
    }

    pub(super) fn panic_threshold(&self) -> f64 {
        self.info.panic_threshold(&self.server)
    }

    /// The host of this address (with its port), in whatever health.
    pub fn host(&self, address: &str) -> Option<Arc<Host>> {
        let hosts = self.cluster.hosts.load();
        hosts.hosts().find(|h| h.address.to_string() == address).cloned()
    }

    /// Whether the cluster has a host of this address (with its port), in whatever health.
    pub fn has_host(&self, address: &str) -> bool {
        let hosts = self.cluster.hosts.load();
        hosts.hosts().any(|h| h.address.to_string() == address)
    }

    /// Whether the policy goes by what hosts report of their load.
    pub fn wants_load_reports(&self) -> bool {
        self.info.lb.client_side.is_some()
    }

    /// Notes what a response's head or trailers report of its host's load.
    pub fn load_report(&self, host: &Host, headers: &HeaderMap) {
        if let Some(config) = &self.info.lb.client_side
            && let Some(report) = orca::report(headers)
        {
            client_side_wrr::note(host, &report, config);
        }
    }

    /// Tells outlier detection how an attempt went.
    #[inline]
    pub fn report(&self, host: &Arc<Host>, result: HostResult) {
        if let Some(owner) = self.owner(host) {
            return owner.report(host, result);
        }
        if let Some(detector) = &self.info.outlier {
            detector.report(&self.cluster, host, result, &self.server);
        }
    }

    /// Whether this request is to be dropped before a host is picked (`drop_overload`).
    pub fn drops(&self, random: u64) -> Dropped {
        match &self.cluster.hosts.load().drop_overload {
            Some(d) if d.share == FractionalPercent::FULL => Dropped::All,
            Some(d) if d.share.hit(random) => Dropped::Some,
            _ => Dropped::No,
        }
    }

    /// Whether any host is there, healthy or not.
    pub fn has_hosts(&self) -> bool {
        self.cluster.hosts.load().hosts().next().is_some()
    }

    /// How many hosts there are, and how many of them are healthy or degraded.
    pub fn membership(&self) -> (u64, u64) {
        let hosts = self.cluster.hosts.load();
        hosts.priorities.iter().fold((0, 0), |(all, usable), p| {
            (
                all + p.hosts.len() as u64,
                usable + (p.healthy.len() + p.degraded.len()) as u64,
            )
        })
    }

    /// The pool of HTTP connections to a host, for one request.
    pub fn http(self: &Rc<Self>, host: &Arc<Host>, options: &PoolOptions) -> HttpPool {
        if let Some(owner) = self.owner(host) {
            return owner.http(host, options);
        }
        if self.info.preconnect.predictive > 1.0 {
            self.preconnect(options);
        }
        HttpPool(self.pool(host, options))
    }

    pub(super) fn pool(self: &Rc<Self>, host: &Arc<Host>, options: &PoolOptions) -> Option<Rc<Pool>> {
        let protocol = match (self.info.http.protocol, options.downstream) {
            (HttpProtocol::Downstream, Some(Version::HTTP_2 | Version::HTTP_3)) => HttpProtocol::Http2,
            (HttpProtocol::Downstream, _) => HttpProtocol::Http1,
            // Without TLS there is no ALPN to settle anything.
            (HttpProtocol::Auto, _) if !self.info.sockets.for_host(host).is_secure() => HttpProtocol::Http1,
            (protocol, _) => protocol,
        };
        let key = PoolKey {
            priority: options.priority,
            protocol,
            transport: options.transport.clone(),
            source: options.source,
            downstream: options.connection.filter(|_| self.info.pool_per_downstream),
            // Of an internal connection all of them count, since they go along; else only those that keep apart.
            shared: options.shared.clone().filter(|s| s.has_identity() || is_internal(host)),
        };
        let mut all = self.pools.borrow_mut();
        let pools = all.entry(Arc::as_ptr(host)).or_default();
        if let Some(pool) = pools.iter().find(|p| p.serves(&key)) {
            return Some(pool.clone());
        }
        if !self.info.resources(key.priority).connection_pools.can_create()
            && let Some(idle) = pools.iter().position(|p| p.is_idle())
        {
            pools.remove(idle).retire_pool();
        }
        let owner = Rc::downgrade(self);
        let internal = self.internal.clone();
        let pool = Pool::new(
            self.info.clone(),
            host.clone(),
            self.server.clone(),
            internal,
            key,
            owner,
        );
        pools.extend(pool.clone());
        pool
    }

    /// A pool has no connections left.
    pub(super) fn forget_pool(&self, pool: &Rc<Pool>) {
        let mut all = self.pools.borrow_mut();
        let host = Arc::as_ptr(&pool.host);
        if let Some(pools) = all.get_mut(&host) {
            pools.retain(|p| !Rc::ptr_eq(p, pool));
            if pools.is_empty() {
                all.remove(&host);
            }
        }
    }

    /// Opens a connection of its own to a host, counted and limited like pooled ones: TCP proxying.
    pub async fn tcp(self: &Rc<Self>, host: &Arc<Host>, options: &PoolOptions) -> Result<TcpLease, ConnectFailure> {
        if let Some(owner) = self.owner(host) {
            return Box::pin(owner.tcp(host, options)).await;
        }
        let lease = pool::tcp(self.info.clone(), host.clone(), &self.server, &self.internal, options).await?;
        if !self.info.close_on_health_failure {
            return Ok(lease);
        }
        let (alive, failed) = oneshot::channel();
        let mut all = self.severable.borrow_mut();
        let of_host = all.entry(Arc::as_ptr(host)).or_default();
        of_host.1.retain(|alive: &oneshot::Sender<_>| !alive.is_closed());
        of_host.0.get_or_insert_with(|| host.clone());
        of_host.1.push(alive);
        Ok(lease.sever_when(failed))
    }

    /// Tells `watcher` what becomes of the cluster, as long as it is there.
    pub fn watch(&self, watcher: Weak<dyn ClusterWatcher>) {
        let mut watchers = self.watchers.borrow_mut();
        watchers.retain(|w| w.strong_count() > 0);
        watchers.push(watcher);
    }

    fn tell(&self, each: impl Fn(&dyn ClusterWatcher)) {
        // What they do may lead back here.
        let watchers = self.watchers.borrow().clone();
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            each(watcher.as_ref());
        }
    }

    /// The cluster is removed, or replaced by another one.
    pub(super) fn retire(&self) {
        self.drain();
        self.tell(|w| w.gone());
    }

    /// Hosts were removed: their pools drain, and go once they are unused.
    pub(super) fn sweep(&self) {
        self.tell(|w| w.hosts_removed());
        self.pools.borrow_mut().retain(|_, pools| {
            let removed = pools.first().is_none_or(|p| p.host.is_removed());
            if removed {
                pools.iter().for_each(|p| p.retire_pool());
            }
            !removed
        });
    }

    /// A host is not well any more: its connections close as they become idle, and new ones are opened if it is used.
    pub(super) fn drain_host(&self, host: &Arc<Host>) {
        // Dropped, it ends the host's TCP connections.
        self.severable.borrow_mut().remove(&Arc::as_ptr(host));
        if let Some(pools) = self.pools.borrow_mut().remove(&Arc::as_ptr(host)) {
            pools.iter().for_each(|p| p.retire_pool());
        }
    }

    /// A response asked for its host not to be used any more (`x-envoy-immediate-health-check-fail`).
    pub fn fail_health_check(&self, host: &Arc<Host>) {
        if let Some(owner) = self.owner(host) {
            return owner.fail_health_check(host);
        }
        health_check::fail_immediately(&self.cluster, host, &self.server);
    }

    /// The cluster is gone or replaced: its connections close as they become idle.
    pub(super) fn drain(&self) {
        for pools in self.pools.borrow_mut().drain() {
            pools.1.iter().for_each(|p| p.retire_pool());
        }
    }
}

fn count_zone(stats: &ClusterStats, zone: ZonePick) {
    match zone {
        ZonePick::NotByZone => {}
        ZonePick::LocalClusterNotOk => stats.lb_local_cluster_not_ok.inc(),
        ZonePick::Direct => stats.lb_zone_routing_all_directly.inc(),
        ZonePick::Sampled => stats.lb_zone_routing_sampled.inc(),
        ZonePick::CrossZone(_) => stats.lb_zone_routing_cross_zone.inc(),
        ZonePick::NoCapacityLeft(_) => {
            stats.lb_zone_routing_cross_zone.inc();
            stats.lb_zone_no_capacity_left.inc();
        }
    }
}

fn is_internal(host: &Host) -> bool {
    matches!(host.address, Address::Internal { .. })
}
