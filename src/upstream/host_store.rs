//! The hosts of one cluster on the control side: applies assignments, keeps hosts of the same address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use xds_protos::envoy::config::core::v3::HealthStatus;

use super::{
    Cluster, ClusterMsg, Health, Host, HostSet, HostSets,
    config::{Assignment, EndpointSpec},
    host::HealthFlag,
    host_set::LocalityHosts,
};
use crate::{
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

/// The hosts of a cluster by address.
pub struct HostStore {
    cluster: Arc<Cluster>,
    hosts: Mutex<HashMap<Address, Arc<Host>>>,
    /// Hosts come from outside: `max_host_weight` is kept.
    dynamic: bool,
}

impl HostStore {
    /// The store behind a cluster's snapshots.
    pub fn new(cluster: Arc<Cluster>, dynamic: bool) -> Self {
        Self {
            cluster,
            dynamic,
            hosts: Mutex::default(),
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Makes the hosts those of `assignment` and publishes them. Hosts whose address stays, stay: with their
    /// connections, counters and health.
    pub fn apply(&self, assignment: Assignment, server: &Arc<ServerContext>) -> Changed {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next: HashMap<Address, Arc<Host>> = HashMap::with_capacity(hosts.len());
        let mut changed = Changed::default();
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        // Priorities whose hosts are others than before.
        let mut touched: BTreeSet<u32> = BTreeSet::new();
        let stats = self.cluster.info.membership.local();
        let mut priorities: BTreeMap<u32, Vec<LocalityHosts>> = BTreeMap::new();
        for group in assignment.localities {
            let localities = priorities.entry(group.priority).or_default();
            let at = match localities.iter().position(|l| l.locality == group.locality) {
                Some(at) => at,
                None => {
                    localities.push(LocalityHosts {
                        locality: group.locality,
                        weight: group.weight,
                        place: localities.len(),
                        ..LocalityHosts::default()
                    });
                    localities.len() - 1
                }
            };
            for spec in group.endpoints {
                // The first of an address counts.
                if next.contains_key(&spec.address) {
                    continue;
                }
                let host = match hosts.get(&spec.address).filter(|h| self.stays(h, &spec)) {
                    Some(host) => {
                        let before = host.attributes().priority;
                        if before != group.priority {
                            touched.extend([before, group.priority]);
                        }
                        changed.published |= update(host, spec);
                        host.clone()
                    }
                    None => {
                        changed.added += 1;
                        // Every host chooses its transport socket once.
                        stats.total_match_count.inc();
                        let host = create(spec);
                        if let Some(checks) = &self.cluster.checks {
                            let warming = self.dynamic && self.cluster.info.lb.ignore_new_hosts_until_first_hc;
                            checks.mark_new(&host, warming);
                        }
                        added.push(host.clone());
                        host
                    }
                };
                next.insert(host.address.clone(), host.clone());
                localities[at].hosts.push(host);
            }
        }
        for (address, host) in hosts.iter() {
            if next.get(address).is_some_and(|n| Arc::ptr_eq(n, host)) {
                continue;
            }
            if !next.contains_key(address) && self.outlives_removal(host) {
                changed.published |= host.set_flag(HealthFlag::PendingDynamicRemoval, true);
                next.insert(address.clone(), host.clone());
                let attributes = host.attributes();
                let localities = priorities.entry(attributes.priority).or_default();
                match localities.iter_mut().find(|l| l.locality == attributes.locality) {
                    Some(locality) => locality.hosts.push(host.clone()),
                    None => localities.push(LocalityHosts {
                        locality: attributes.locality.clone(),
                        hosts: vec![host.clone()],
                        place: localities.len(),
                        ..LocalityHosts::default()
                    }),
                }
            } else if !host.is_removed() {
                host.remove();
                changed.removed += 1;
                removed.push(host.clone());
            }
        }
        *hosts = next;
        drop(hosts);

        let count = priorities.keys().last().map_or(1, |p| *p as usize + 1);
        let mut sets: Vec<HostSet> = Vec::with_capacity(count);
        for priority in 0..count {
            let mut localities = priorities
                .remove(&u32::try_from(priority).unwrap_or(0))
                .unwrap_or_default();
            localities.sort_by(|a, b| a.locality.cmp(&b.locality));
            let factor = assignment.overprovisioning_factor;
            sets.push(HostSet::new(localities, factor, assignment.weighted_priority_health));
        }
        let sets = self.cluster.host_sets(sets, assignment.drop_overload, server);
        let before = self.cluster.hosts.load();
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
            let heaviest = sets.hosts().map(|h| h.weight()).max().unwrap_or(0);
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

fn create(spec: EndpointSpec) -> Arc<Host> {
    let host = Host::new(spec.address, spec.hostname, spec.weight, spec.attributes);
    set_health(&host, spec.health);
    Arc::new(host)
}

fn update(host: &Host, spec: EndpointSpec) -> bool {
    // Not `||`: every one of them has to be applied.
    host.set_weight(spec.weight)
        | host.set_attributes(spec.attributes)
        | set_health(host, spec.health)
        | host.set_flag(HealthFlag::PendingDynamicRemoval, false)
}

fn set_health(host: &Host, status: HealthStatus) -> bool {
    let unhealthy = matches!(status, HealthStatus::Unhealthy | HealthStatus::Timeout);
    host.set_flag(HealthFlag::FailedEdsHealth, unhealthy)
        | host.set_flag(HealthFlag::EdsStatusDraining, status == HealthStatus::Draining)
        | host.set_flag(HealthFlag::DegradedEdsHealth, status == HealthStatus::Degraded)
}

/// Whether two snapshots balance alike.
fn same(a: &HostSets, b: &HostSets) -> bool {
    let hosts =
        |a: &[Arc<Host>], b: &[Arc<Host>]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b));
    a.drop_overload == b.drop_overload
        && a.priorities.len() == b.priorities.len()
        && a.priorities.iter().zip(&b.priorities).all(|(a, b)| {
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
        })
}

#[cfg(test)]
mod tests;
