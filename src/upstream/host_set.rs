//! The hosts of a cluster at one moment: immutable snapshots that control publishes and workers balance over.
//!
//! What does not depend on the request is computed here, once for all workers: which hosts are healthy, which
//! priorities get which share of the load, which of them panic, and what weight their localities have. A snapshot
//! shares with the one before it every priority, locality and list that did not change.

use std::sync::Arc;

use super::{
    Health, Host, Locality,
    config::DropOverload,
    lb::{HashTables, PriorityLoads, ZoneRouting},
    subset::Subsets,
};

/// Hosts that do not change any more; empty lists and lists that say the same cost nothing.
pub type HostList = Arc<[Arc<Host>]>;

/// The hosts of one locality in one priority.
#[derive(Debug, Clone, Default)]
pub struct LocalityHosts {
    /// Where they are.
    pub locality: Arc<Locality>,
    /// `LocalityLbEndpoints.load_balancing_weight`, 0 when unset.
    pub weight: u32,
    /// All of them.
    pub hosts: HostList,
    /// The healthy ones.
    pub healthy: HostList,
    /// The degraded ones.
    pub degraded: HostList,
    /// Those that do not count: never checked, or told at once that they are not to be used.
    pub excluded: HostList,
}

impl LocalityHosts {
    /// Sorts these hosts by health.
    pub fn new(locality: Arc<Locality>, weight: u32, hosts: HostList) -> Self {
        Self {
            locality,
            weight,
            healthy: only(&hosts, |h| h.health() == Health::Healthy),
            degraded: only(&hosts, |h| h.health() == Health::Degraded),
            excluded: only(&hosts, Host::is_excluded),
            hosts,
        }
    }

    /// The same hosts as their health is now.
    fn refreshed(&self) -> Self {
        match is_current(&self.hosts, &self.healthy, &self.degraded, &self.excluded) {
            true => self.clone(),
            false => Self::new(self.locality.clone(), self.weight, self.hosts.clone()),
        }
    }
}

/// The hosts of one priority.
#[derive(Debug, Clone)]
pub struct HostSet {
    /// All hosts, in the order of the assignment.
    pub hosts: HostList,
    /// The healthy ones.
    pub healthy: HostList,
    /// The degraded ones.
    pub degraded: HostList,
    /// Those that do not count: never checked, or told at once that they are not to be used.
    pub excluded: HostList,
    /// The same by locality: the node's own first, the others sorted.
    pub localities: Vec<LocalityHosts>,
    /// Whether the first locality is the node's own.
    pub has_local_locality: bool,
    /// `overprovisioning_factor` in percent.
    pub overprovisioning_factor: u32,
    /// `weighted_priority_health`
    pub weighted_health: bool,
    /// The weights of localities have no say: a subset that is not aware of them.
    pub weightless: bool,
}

impl Default for HostSet {
    fn default() -> Self {
        Self::new(Vec::new(), 140, false)
    }
}

impl HostSet {
    /// The hosts of these localities, one locality after the other.
    pub fn new(localities: Vec<LocalityHosts>, overprovisioning_factor: u32, weighted_health: bool) -> Self {
        let hosts = match localities.as_slice() {
            [] => HostList::default(),
            [only] => only.hosts.clone(),
            several => several.iter().flat_map(|l| l.hosts.iter()).cloned().collect(),
        };
        Self::in_order(hosts, localities, overprovisioning_factor, weighted_health)
    }

    /// The same in the order of `hosts`.
    pub fn in_order(
        hosts: HostList,
        localities: Vec<LocalityHosts>,
        overprovisioning_factor: u32,
        weighted_health: bool,
    ) -> Self {
        let (healthy, degraded, excluded) = match localities.as_slice() {
            // One locality says it all.
            [one] => (one.healthy.clone(), one.degraded.clone(), one.excluded.clone()),
            _ => (
                only(&hosts, |h| h.health() == Health::Healthy),
                only(&hosts, |h| h.health() == Health::Degraded),
                only(&hosts, Host::is_excluded),
            ),
        };
        Self {
            hosts,
            healthy,
            degraded,
            excluded,
            localities,
            has_local_locality: false,
            overprovisioning_factor,
            weighted_health,
            weightless: false,
        }
    }

    /// The same hosts as their health is now; `self` if it did not change.
    pub fn refreshed(self: &Arc<Self>) -> Arc<Self> {
        if is_current(&self.hosts, &self.healthy, &self.degraded, &self.excluded) {
            return self.clone();
        }
        self.with_localities(self.localities.iter().map(LocalityHosts::refreshed).collect())
    }

    /// The same without one host; `self` if it is not there.
    pub fn without(self: &Arc<Self>, host: &Arc<Host>) -> Arc<Self> {
        let is_other = |h: &Host| !std::ptr::eq(h, Arc::as_ptr(host));
        if self.hosts.iter().all(|h| is_other(h)) {
            return self.clone();
        }
        let localities = self.localities.iter();
        let localities = localities.map(|l| LocalityHosts::new(l.locality.clone(), l.weight, only(&l.hosts, is_other)));
        let hosts = only(&self.hosts, is_other);
        let had_local = self.has_local_locality;
        let first_is_empty = self
            .localities
            .first()
            .is_some_and(|l| l.hosts.iter().all(|h| !is_other(h)));
        Arc::new(Self {
            has_local_locality: had_local && !first_is_empty,
            weightless: self.weightless,
            ..Self::in_order(
                hosts,
                localities.filter(|l| !l.hosts.is_empty()).collect(),
                self.overprovisioning_factor,
                self.weighted_health,
            )
        })
    }

    fn with_localities(&self, localities: Vec<LocalityHosts>) -> Arc<Self> {
        let (factor, weighted) = (self.overprovisioning_factor, self.weighted_health);
        Arc::new(Self {
            has_local_locality: self.has_local_locality,
            weightless: self.weightless,
            ..Self::in_order(self.hosts.clone(), localities, factor, weighted)
        })
    }

    /// The node's own locality, if it has hosts here.
    pub fn local_locality(&self) -> Option<&LocalityHosts> {
        self.localities.first().filter(|_| self.has_local_locality)
    }
}

/// Those of `hosts` that are wanted; no new list if that is none or all of them.
pub(super) fn only(hosts: &HostList, wanted: impl Fn(&Host) -> bool) -> HostList {
    let kept: Vec<_> = hosts.iter().filter(|h| wanted(h)).cloned().collect();
    match kept.len() {
        0 => HostList::default(),
        n if n == hosts.len() => hosts.clone(),
        _ => kept.into(),
    }
}

/// Whether the lists say of `hosts` what their health is now.
fn is_current(hosts: &[Arc<Host>], healthy: &[Arc<Host>], degraded: &[Arc<Host>], excluded: &[Arc<Host>]) -> bool {
    let (mut healthy, mut degraded, mut excluded) = (healthy.iter(), degraded.iter(), excluded.iter());
    let is_next = |list: &mut std::slice::Iter<'_, Arc<Host>>, host| list.next().is_some_and(|h| Arc::ptr_eq(h, host));
    hosts.iter().all(|host| {
        let sorted = match host.health() {
            Health::Healthy => is_next(&mut healthy, host),
            Health::Degraded => is_next(&mut degraded, host),
            Health::Unhealthy => true,
        };
        sorted && (!host.is_excluded() || is_next(&mut excluded, host))
    }) && healthy.len() + degraded.len() + excluded.len() == 0
}

/// The hosts of a cluster by priority.
#[derive(Debug)]
pub struct HostSets {
    /// Index is the priority.
    pub priorities: Vec<Arc<HostSet>>,
    /// The share of the load of each priority.
    pub loads: PriorityLoads,
    /// How the first priority is shared among zones, where it is.
    pub zone: Option<ZoneRouting>,
    /// The same hosts by their metadata, for clusters with subsets.
    pub subsets: Option<Subsets>,
    /// What policies that hash keep, shared by all workers.
    pub tables: HashTables,
    /// Requests to answer 503 without picking a host.
    pub drop_overload: Option<DropOverload>,
}

impl HostSets {
    /// Computes the loads; `panic_threshold` in percent.
    pub fn new<S: Into<Arc<HostSet>>>(
        priorities: Vec<S>,
        panic_threshold: f64,
        drop_overload: Option<DropOverload>,
    ) -> Self {
        let priorities: Vec<Arc<HostSet>> = priorities.into_iter().map(Into::into).collect();
        Self {
            loads: PriorityLoads::new(&priorities, panic_threshold),
            tables: HashTables::new(priorities.len()),
            priorities,
            zone: None,
            subsets: None,
            drop_overload,
        }
    }

    /// All hosts of all priorities.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|p| p.hosts.iter())
    }
}

impl Default for HostSets {
    fn default() -> Self {
        Self::new(vec![HostSet::default()], 50.0, None)
    }
}

#[cfg(test)]
mod tests;
