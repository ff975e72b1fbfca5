//! A cluster with a host for each name of a cache.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use arc_swap::ArcSwap;

use super::{Authority, CachedHost, DnsCache, Load, resolution_failure};
use crate::{
    net::Address,
    server::{ServerContext, WorkerMsg},
    upstream::{Cluster, ClusterMsg, Health, Host, HostAttributes, HostSet, LocalityHosts},
};

/// A name's host.
#[derive(Debug, Clone)]
struct Named {
    host: Arc<Host>,
    cached: Arc<CachedHost>,
}

type Hosts = HashMap<Arc<str>, Named, foldhash::fast::RandomState>;

/// The hosts of a cluster by their names, shared by control, which replaces them, and workers.
#[derive(Debug)]
pub struct DfpCluster {
    cache: Arc<DnsCache>,
    hosts: ArcSwap<Hosts>,
    /// Once it was started.
    cluster: Mutex<Weak<Cluster>>,
}

/// Keeps a cluster's hosts those of its cache.
pub struct Following(#[allow(dead_code, reason = "held, not used")] Arc<DfpCluster>);

impl DfpCluster {
    /// Without hosts.
    pub fn new(cache: Arc<DnsCache>) -> Arc<Self> {
        Arc::new(Self {
            cache,
            hosts: ArcSwap::default(),
            cluster: Mutex::new(Weak::new()),
        })
    }

    /// From now on its hosts are those of its cache.
    pub fn start(self: &Arc<Self>, cluster: &Arc<Cluster>, server: &Arc<ServerContext>) -> Following {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(cluster);
        self.cache.follow(self, server);
        Following(self.clone())
    }

    /// The host of this name (with its port), unless it is not well.
    pub fn find(&self, key: &str) -> Option<Arc<Host>> {
        let hosts = self.hosts.load();
        let named = hosts.get(key)?;
        if named.host.health() == Health::Unhealthy {
            return None;
        }
        named.cached.touch();
        Some(named.host.clone())
    }

    /// Has a host looked up that nobody waits for.
    pub(super) fn load(&self, host: &str, default_port: u16, server: &Arc<ServerContext>) {
        // What comes of it, the hosts tell.
        let _ = self.cache.load(host, default_port, server);
    }

    /// Waits until it is known what becomes of a host. The error is the response-code details.
    pub(super) async fn prepare(
        &self,
        host: &str,
        default_port: u16,
        server: &Arc<ServerContext>,
    ) -> Result<(), String> {
        if self.find(&Authority::key(host, default_port)).is_some() {
            return Ok(());
        }
        let Some(_pending) = self.cache.enter() else {
            return Err("dns_cache_pending_requests_overflow".into());
        };
        let cached = match self.cache.load(host, default_port, server) {
            Load::InCache(cached) => Some(cached),
            Load::Loading(loading) => loading.await.ok(),
            Load::Overflow => return Err("dns_cache_overflow".into()),
        };
        match cached {
            Some(cached) if cached.address().is_some() => Ok(()),
            Some(cached) => Err(resolution_failure(&cached.details())),
            None => Err(resolution_failure("no_host")),
        }
    }

    /// A name has these addresses now: its host goes on with them. Control side.
    pub(super) fn changed(&self, cached: &Arc<CachedHost>, addresses: &[SocketAddr], server: &Arc<ServerContext>) {
        let (Some(cluster), [first, others @ ..]) = (self.cluster(), addresses) else {
            return;
        };
        let mut attributes = HostAttributes {
            additional_addresses: others.iter().copied().map(Address::Ip).collect(),
            ..HostAttributes::default()
        };
        let mut hosts = Hosts::clone(&self.hosts.load());
        if let Some(named) = hosts.get(&cached.key) {
            // The connections it has stay.
            attributes.moved_to = Some(Box::new(Address::Ip(*first)));
            named.host.set_attributes(attributes.into());
            return;
        }
        let host = Arc::new(Host::new(Address::Ip(*first), cached.key.clone(), 1, attributes));
        let named = Named {
            host: host.clone(),
            cached: cached.clone(),
        };
        hosts.insert(cached.key.clone(), named);
        let stats = cluster.info.membership.local();
        stats.total_match_count.inc();
        stats.membership_change.inc();
        self.publish(hosts, &[host], &[], &cluster, server);
    }

    /// A name is gone. Control side.
    pub(super) fn removed(&self, key: &str, server: &Arc<ServerContext>) {
        let mut hosts = Hosts::clone(&self.hosts.load());
        if let (Some(cluster), Some(gone)) = (self.cluster(), hosts.remove(key)) {
            cluster.info.membership.local().membership_change.inc();
            self.publish(hosts, &[], &[gone.host], &cluster, server);
        }
    }

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn publish(
        &self,
        hosts: Hosts,
        added: &[Arc<Host>],
        removed: &[Arc<Host>],
        cluster: &Arc<Cluster>,
        server: &Arc<ServerContext>,
    ) {
        let all = hosts.values().map(|named| named.host.clone()).collect();
        let all = LocalityHosts::new(Arc::default(), 0, all);
        self.hosts.store(Arc::new(hosts));
        let sets = cluster.host_sets(vec![Arc::new(HostSet::new(vec![all], 140, false))], None, server);
        cluster.publish(sets, server);
        removed.iter().for_each(|host| host.remove());
        if let Some(checks) = &cluster.checks {
            checks.update(added, removed, cluster, server);
        }
        if !removed.is_empty() {
            server
                .mailboxes
                .broadcast(|| WorkerMsg::Cluster(ClusterMsg::HostsRemoved(cluster.clone())));
        }
    }
}
