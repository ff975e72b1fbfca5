//! A cache of names: resolved on the control thread when the first request asks for them, and kept as long as
//! requests use them.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::{Authority, CacheOptions, CachedHost, DfpCluster, Pending, breaker::Breaker};
use crate::{
    server::ServerContext,
    stats::Stats,
    upstream::dns::{Answer, Backoff},
};

crate::stats_block! {
    /// `dns_cache.<name>.`
    pub(super) struct DnsCacheStats {
        counter cache_load, "Names loaded from a store";
        counter dns_address_filter_out, "Addresses left out";
        counter dns_query_attempt, "Attempts to resolve a name";
        counter dns_query_failure, "Failed attempts";
        counter dns_query_success, "Attempts that brought an answer";
        counter dns_query_timeout, "Attempts that took too long";
        counter dns_rq_pending_overflow, "Requests refused because too many wait";
        counter host_added, "Names added";
        counter host_address_changed, "Changes of addresses";
        counter host_overflow, "Requests refused because there are too many names";
        counter host_removed, "Names removed";
        gauge(never_import) num_hosts, "Names";
    }
}

type Hosts = HashMap<Arc<str>, Arc<CachedHost>, foldhash::fast::RandomState>;

/// What a worker is told of a name.
pub enum Load {
    /// It is known what becomes of it.
    InCache(Arc<CachedHost>),
    /// It will be known when this says so.
    Loading(oneshot::Receiver<Arc<CachedHost>>),
    /// There are too many names.
    Overflow,
}

/// The cache, shared by control and workers.
pub struct DnsCache {
    options: CacheOptions,
    stats: Stats<DnsCacheStats>,
    breaker: Arc<Breaker>,
    /// Replaced as a whole when a name comes or goes.
    hosts: ArcSwap<Hosts>,
    backoff: Mutex<Backoff>,
    /// Clusters that have a host for each name.
    followers: Mutex<Vec<Weak<DfpCluster>>>,
}

impl DnsCache {
    pub(super) fn new(options: CacheOptions, server: &Arc<ServerContext>) -> Arc<Self> {
        // The one without a name, of filters that name none, has no name in statistics either.
        let scope = match options.name.as_str() {
            "" => server.stats.scope("dns_cache."),
            name => server.stats.scope(&format!("dns_cache.{name}.")),
        };
        let cache = Arc::new(Self {
            stats: scope.block(),
            breaker: Breaker::new(options.max_pending, &scope),
            hosts: ArcSwap::default(),
            backoff: Mutex::new(Backoff::new(options.failure, options.refresh)),
            followers: Mutex::default(),
            options,
        });
        for (name, port) in &cache.options.preresolve {
            // Nobody waits for it.
            let (sender, _) = oneshot::channel();
            cache.start(Authority::key(name, *port), *port, sender, server);
        }
        cache
    }

    /// A place among the requests that wait for names; none if there are too many.
    pub fn enter(&self) -> Option<Pending> {
        let pending = self.breaker.enter();
        if pending.is_none() {
            self.stats.local().dns_rq_pending_overflow.inc();
        }
        pending
    }

    /// Looks a host up, and has it resolved where it is new.
    pub fn load(self: &Arc<Self>, host: &str, default_port: u16, server: &Arc<ServerContext>) -> Load {
        let key = Authority::key(host, default_port);
        let hosts = self.hosts.load();
        if let Some(known) = hosts.get(key.as_str()).filter(|h| h.is_resolved()) {
            return Load::InCache(known.clone());
        }
        if hosts.len() >= self.options.max_hosts {
            self.stats.local().host_overflow.inc();
            return Load::Overflow;
        }
        let (sender, receiver) = oneshot::channel();
        self.start(key, default_port, sender, server);
        Load::Loading(receiver)
    }

    /// Calls `cluster` whenever a name has other addresses or goes; first for those that are there.
    pub(super) fn follow(&self, cluster: &Arc<DfpCluster>, server: &Arc<ServerContext>) {
        lock(&self.followers).push(Arc::downgrade(cluster));
        for host in self.hosts.load().values().filter(|h| h.address().is_some()) {
            cluster.changed(host, &host.addresses(), server);
        }
    }

    /// Has a host resolved on the control thread; `sender` is told when it is.
    fn start(
        self: &Arc<Self>,
        key: String,
        default_port: u16,
        sender: oneshot::Sender<Arc<CachedHost>>,
        server: &Arc<ServerContext>,
    ) {
        let (cache, server) = (self.clone(), server.clone());
        server.clone().mailboxes.run_on_control(move |_| {
            let known = cache.hosts.load().get(key.as_str()).cloned();
            let host = known.unwrap_or_else(|| cache.add(&key, default_port, &server));
            let (done, resolved) = oneshot::channel();
            host.notify(done);
            tokio::task::spawn_local(async move {
                if resolved.await.is_ok() {
                    // Whoever waited may be gone.
                    let _ = sender.send(host);
                }
            });
        });
    }

    fn add(self: &Arc<Self>, key: &str, default_port: u16, server: &Arc<ServerContext>) -> Arc<CachedHost> {
        let host = Arc::new(CachedHost::new(key, default_port));
        let mut hosts = Hosts::clone(&self.hosts.load());
        hosts.insert(host.key.clone(), host.clone());
        self.hosts.store(Arc::new(hosts));
        self.stats.local().host_added.inc();
        self.stats.local().num_hosts.inc();
        tokio::task::spawn_local(keep(Arc::downgrade(self), host.clone(), server.clone()));
        host
    }

    fn remove(&self, host: &CachedHost, server: &Arc<ServerContext>) {
        let mut hosts = Hosts::clone(&self.hosts.load());
        hosts.remove(&host.key);
        self.hosts.store(Arc::new(hosts));
        self.stats.local().host_removed.inc();
        self.stats.local().num_hosts.dec();
        if host.address().is_some() {
            self.tell(|cluster| cluster.removed(&host.key, server));
        }
    }

    /// One attempt. The pause before the next one; none if there is to be no next one.
    async fn attempt(&self, host: &Arc<CachedHost>, server: &Arc<ServerContext>) -> Option<Duration> {
        self.stats.local().dns_query_attempt.inc();
        let resolving = self.options.resolver.resolve(&host.name, self.options.family);
        let mut answer = match self.options.query_timeout {
            None => resolving.await,
            Some(limit) => tokio::time::timeout(limit, resolving).await.unwrap_or_else(|_| {
                self.stats.local().dns_query_timeout.inc();
                Answer {
                    completed: false,
                    addresses: Vec::new(),
                    details: "resolve_timeout".into(),
                }
            }),
        };
        let stats = self.stats.local();
        match answer.completed {
            true => stats.dns_query_success.inc(),
            false => stats.dns_query_failure.inc(),
        }
        if let Some(forbidden) = &self.options.forbidden {
            let before = answer.addresses.len();
            answer.addresses.retain(|a| !forbidden.matches(Some(a.ip)));
            stats
                .dns_address_filter_out
                .add((before - answer.addresses.len()) as u64);
            if before > 0 && answer.addresses.is_empty() {
                answer.details = "address_denied".into();
                answer.completed = false;
            }
        }
        let addresses: Vec<SocketAddr> = answer
            .addresses
            .iter()
            .map(|a| SocketAddr::new(a.ip, host.port))
            .collect();
        if host.moves_to(&addresses) {
            stats.host_address_changed.inc();
            // Before anybody who waits goes on: the clusters know the host by then.
            self.tell(|cluster| cluster.changed(host, &addresses, server));
        }
        host.take(addresses, answer.details);
        if !answer.completed {
            if self.options.forget_failures {
                return None;
            }
            return Some(lock(&self.backoff).pause());
        }
        lock(&self.backoff).reset();
        let holds = answer.addresses.first().map_or(self.options.refresh, |a| a.ttl);
        Some(holds.max(self.options.min_refresh))
    }

    fn tell(&self, what: impl Fn(&Arc<DfpCluster>)) {
        let mut followers = lock(&self.followers);
        followers.retain(|f| f.strong_count() > 0);
        followers.iter().filter_map(Weak::upgrade).for_each(|f| what(&f));
    }
}

/// Resolves a name as long as it is used and its cache is there.
async fn keep(cache: Weak<DnsCache>, host: Arc<CachedHost>, server: Arc<ServerContext>) {
    loop {
        let Some(present) = cache.upgrade() else { return };
        let pause = present.attempt(&host, &server).await;
        let host_ttl = present.options.host_ttl;
        let Some(pause) = pause else {
            return present.remove(&host, &server);
        };
        drop(present);
        tokio::time::sleep(pause).await;
        if host.unused_for() > host_ttl {
            if let Some(present) = cache.upgrade() {
                present.remove(&host, &server);
            }
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for DnsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DnsCache").field(&self.options.name).finish()
    }
}
