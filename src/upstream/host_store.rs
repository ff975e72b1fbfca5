//! The hosts of one cluster on the control side: applies assignments, keeps hosts of the same address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use xds_protos::envoy::config::core::v3::HealthStatus;

use super::{
    Cluster, ClusterMsg, Health, Host, HostAttributes, HostSet, HostSets, Locality,
    config::{Assignment, EndpointSpec},
    host::HealthFlag,
    host_set::LocalityHosts,
};
use crate::{
    config::Recent,
    net::Address,
    server::{ServerContext, WorkerMsg},
};

/// What an assignment changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Hosts that are new.
    pub added: usize,
    /// Hosts that are gone.
    pub removed: usize,
    /// Anything at all: a new snapshot was published.
    pub published: bool,
}

/// Changes the hosts of a cluster.
pub struct HostStore {
    cluster: Arc<Cluster>,
    /// One assignment at a time; the hosts are those of the snapshot.
    applying: Mutex<()>,
    /// Hosts come from outside: `max_host_weight` is kept.
    dynamic: bool,
}

impl HostStore {
    /// The store behind a cluster's snapshots.
    pub fn new(cluster: Arc<Cluster>, dynamic: bool) -> Self {
        Self {
            cluster,
            dynamic,
            applying: Mutex::default(),
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Makes the hosts those of `assignment` and publishes them. Hosts whose address stays, stay: with their
    /// connections, counters and health.
    pub fn apply(&self, assignment: Assignment, server: &Arc<ServerContext>) -> Changed {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.cluster.hosts.load_full();
        let hosts: HashMap<&Address, &Arc<Host>> = before.hosts().map(|host| (&host.address, host)).collect();
        let shared = &server.clusters.common.attributes;
        let mut next: HashMap<Address, Arc<Host>> = HashMap::with_capacity(hosts.len());
        let mut changed = Changed::default();
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        // Priorities whose hosts are others than before.
        let mut touched: BTreeSet<u32> = BTreeSet::new();
        let stats = self.cluster.info.membership.local();
        let mut priorities: BTreeMap<u32, Gathered> = BTreeMap::new();
        for group in assignment.localities {
            let gathered = priorities.entry(group.priority).or_default();
            let at = gathered.locality(&group.locality);
            // The last weight of a locality counts.
            if group.weight > 0 {
                gathered.localities[at].weight = group.weight;
            }
            for spec in group.endpoints {
                // The first of an address counts, but for static clusters, which take what they are given.
                if self.dynamic && next.contains_key(&spec.address) {
                    continue;
                }
                // As Envoy, which makes a host of every endpoint and then finds out that it has it already.
                let chosen = |attributes: &HostAttributes| {
                    if !self.cluster.info.sockets.count(attributes) {
                        stats.total_match_count.inc();
                    }
                };
                chosen(&spec.attributes);
                let host = match hosts.get(&spec.address).filter(|h| self.stays(h, &spec)) {
                    Some(&host) => {
                        let before = host.attributes().priority;
                        if before != group.priority {
                            touched.extend([before, group.priority]);
                        }
                        if host.attributes().metadata != spec.attributes.metadata {
                            chosen(&spec.attributes);
                        }
                        changed.published |= update(host, spec, shared);
                        host.clone()
                    }
                    None => {
                        changed.added += 1;
                        let host = create(spec, shared);
                        if let Some(checks) = &self.cluster.checks {
                            let warming = self.dynamic && self.cluster.info.lb.ignore_new_hosts_until_first_hc;
                            checks.mark_new(&host, warming);
                        }
                        added.push(host.clone());
                        host
                    }
                };
                next.insert(host.address.clone(), host.clone());
                gathered.push(at, host);
            }
        }
        for (address, host) in hosts {
            if next.get(address).is_some_and(|n| Arc::ptr_eq(n, host)) {
                continue;
            }
            if !next.contains_key(address) && self.outlives_removal(host) {
                // Nothing changes for requests.
                host.set_flag(HealthFlag::PendingDynamicRemoval, true);
                next.insert(address.clone(), host.clone());
                let attributes = host.attributes();
                let gathered = priorities.entry(attributes.priority).or_default();
                let at = gathered.locality(&attributes.locality);
                gathered.push(at, host.clone());
            } else if !host.is_removed() {
                host.remove();
                changed.removed += 1;
                removed.push(host.clone());
            }
        }

        let count = priorities.keys().last().map_or(1, |p| *p as usize + 1);
        let own = Locality::of(server.node.locality.as_ref());
        let sets = (0..count).map(|priority| {
            let gathered = u32::try_from(priority).ok().and_then(|p| priorities.remove(&p));
            let factor = assignment.overprovisioning_factor;
            let set = gathered
                .unwrap_or_default()
                .into_set(&own, factor, assignment.weighted_priority_health);
            match before.priorities.get(priority) {
                Some(before) if !changed.published && same_set(before, &set) => before.clone(),
                _ => Arc::new(set),
            }
        });
        let sets = self.cluster.host_sets(sets.collect(), assignment.drop_overload, server);
        changed.published |= changed.added + changed.removed > 0 || !same(&before, &sets);
        if changed.published {
            touched.extend(added.iter().chain(&removed).map(|h| h.attributes().priority));
            stats.membership_change.add(touched.len() as u64);
            self.publish(sets, changed, server);
        }
        if let Some(outlier) = &self.cluster.info.outlier {
            outlier.removed(&removed);
        }
        if let Some(checks) = &self.cluster.checks {
            checks.update(&added, &removed, &self.cluster, server);
        }
        changed
    }

    /// Whether a known host is the one that is configured now. Who is checked elsewhere than before is another host.
    fn stays(&self, host: &Host, spec: &EndpointSpec) -> bool {
        let attributes = host.attributes();
        !host.is_removed()
            && *host.hostname == *spec.hostname
            && (self.cluster.checks.is_none()
                || attributes.health_check_address == spec.attributes.health_check_address
                    && attributes.health_check_disabled == spec.attributes.health_check_disabled)
    }

    /// Whether a host that discovery removed is kept because it is well, until a check says otherwise.
    fn outlives_removal(&self, host: &Host) -> bool {
        self.dynamic
            && self.cluster.checks.is_some()
            && !self.cluster.info.ignore_health_on_host_removal
            && !host.is_removed()
            && host.health() != Health::Unhealthy
    }

    fn publish(&self, sets: HostSets, changed: Changed, server: &ServerContext) {
        let stats = self.cluster.info.membership.local();
        if self.dynamic {
            let heaviest = sets.hosts().map(|h| h.weight()).max().unwrap_or(1);
            stats.max_host_weight.set(heaviest.into());
        }
        self.cluster.publish(sets, server);
        if changed.removed > 0 {
            let cluster = &self.cluster;
            server
                .mailboxes
                .broadcast(|| WorkerMsg::Cluster(ClusterMsg::HostsRemoved(cluster.clone())));
        }
        if changed.added + changed.removed > 0 && self.cluster.info.close_on_host_set_change {
            server
                .mailboxes
                .broadcast(|| WorkerMsg::Cluster(ClusterMsg::HostSetChanged(self.cluster.clone())));
        }
    }
}

fn create(spec: EndpointSpec, shared: &Recent<HostAttributes>) -> Arc<Host> {
    let hostname: Arc<str> = match spec.hostname.is_empty() {
        true => Arc::default(),
        false => spec.hostname.into(),
    };
    let host = Host::new(spec.address, hostname, spec.weight, shared.share(spec.attributes));
    set_health(&host, spec.health);
    host.health_told(true);
    Arc::new(host)
}

fn update(host: &Host, spec: EndpointSpec, shared: &Recent<HostAttributes>) -> bool {
    // Not `||`: every one of them has to be applied.
    let changed = host.set_weight(spec.weight)
        | host.set_attributes(shared.share(spec.attributes))
        | set_health(host, spec.health)
        | host.set_flag(HealthFlag::PendingDynamicRemoval, false);
    host.health_told(false);
    changed
}

fn set_health(host: &Host, status: HealthStatus) -> bool {
    let unhealthy = matches!(status, HealthStatus::Unhealthy | HealthStatus::Timeout);
    host.set_flag(HealthFlag::FailedEdsHealth, unhealthy)
        | host.set_flag(HealthFlag::EdsStatusDraining, status == HealthStatus::Draining)
        | host.set_flag(HealthFlag::DegradedEdsHealth, status == HealthStatus::Degraded)
}

/// The hosts of a priority while they are gathered.
#[derive(Default)]
struct Gathered {
    hosts: Vec<Arc<Host>>,
    localities: Vec<GatheredLocality>,
}

struct GatheredLocality {
    locality: Arc<Locality>,
    weight: u32,
    hosts: Vec<Arc<Host>>,
}

impl Gathered {
    /// The number of a locality, which may be new.
    fn locality(&mut self, locality: &Arc<Locality>) -> usize {
        if let Some(at) = self.localities.iter().position(|l| l.locality == *locality) {
            return at;
        }
        self.localities.push(GatheredLocality {
            locality: locality.clone(),
            weight: 0,
            hosts: Vec::new(),
        });
        self.localities.len() - 1
    }

    fn push(&mut self, locality: usize, host: Arc<Host>) {
        self.localities[locality].hosts.push(host.clone());
        self.hosts.push(host);
    }

    /// The priority, with the node's own locality first and without localities that have no hosts.
    fn into_set(self, own: &Locality, overprovisioning_factor: u32, weighted_health: bool) -> HostSet {
        let mut localities = self.localities;
        localities.retain(|l| !l.hosts.is_empty());
        localities.sort_by(|a, b| (*a.locality != *own, &a.locality).cmp(&(*b.locality != *own, &b.locality)));
        let has_local_locality = localities.first().is_some_and(|l| *l.locality == *own);
        let localities: Vec<_> = localities
            .into_iter()
            .map(|l| LocalityHosts::new(l.locality, l.weight, l.hosts.into()))
            .collect();
        let set = match localities.len() {
            1 => HostSet::new(localities, overprovisioning_factor, weighted_health),
            _ => HostSet::in_order(self.hosts.into(), localities, overprovisioning_factor, weighted_health),
        };
        HostSet {
            has_local_locality,
            ..set
        }
    }
}

/// The hosts as a set, by where they are in memory.
fn addresses(hosts: &[Arc<Host>]) -> HashSet<*const Host> {
    hosts.iter().map(Arc::as_ptr).collect()
}

/// Whether two snapshots balance alike.
fn same(a: &HostSets, b: &HostSets) -> bool {
    a.drop_overload == b.drop_overload
        && a.priorities.len() == b.priorities.len()
        && a.priorities
            .iter()
            .zip(&b.priorities)
            .all(|(a, b)| Arc::ptr_eq(a, b) || same_set(a, b))
}

fn same_set(a: &HostSet, b: &HostSet) -> bool {
    let in_order = |a: &[Arc<Host>], b: &[Arc<Host>]| a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b));
    // The order means nothing: hosts that stay although they were removed come last.
    let hosts =
        |a: &[Arc<Host>], b: &[Arc<Host>]| a.len() == b.len() && (in_order(a, b) || addresses(a) == addresses(b));
    a.overprovisioning_factor == b.overprovisioning_factor
        && a.weighted_health == b.weighted_health
        && hosts(&a.hosts, &b.hosts)
        && hosts(&a.healthy, &b.healthy)
        && hosts(&a.degraded, &b.degraded)
        && hosts(&a.excluded, &b.excluded)
        && a.localities.len() == b.localities.len()
        && a.localities
            .iter()
            .zip(&b.localities)
            .all(|(a, b)| a.weight == b.weight && a.locality == b.locality && hosts(&a.hosts, &b.hosts))
}

#[cfg(test)]
mod tests;
