//! The hosts of a cluster at one moment: immutable snapshots that control publishes and workers balance over.
//!
//! What does not depend on the request is computed here, once for all workers: which hosts are healthy, which
//! priorities get which share of the load, which of them panic, and what weight their localities have.

use std::sync::Arc;

use super::{
    Health, Host, Locality,
    config::DropOverload,
    lb::{HashTables, PriorityLoads},
    subset::Subsets,
};

/// The hosts of one locality in one priority.
#[derive(Debug, Clone, Default)]
pub struct LocalityHosts {
    /// Where they are.
    pub locality: Arc<Locality>,
    /// `LocalityLbEndpoints.load_balancing_weight`, 0 when unset.
    pub weight: u32,
    /// Its place in the assignment: localities are sorted by name, the hosts of a priority are not.
    pub place: usize,
    /// All of them.
    pub hosts: Vec<Arc<Host>>,
    /// The healthy ones.
    pub healthy: Vec<Arc<Host>>,
    /// The degraded ones.
    pub degraded: Vec<Arc<Host>>,
    /// Those that do not count: never checked, or told at once that they are not to be used.
    pub excluded: Vec<Arc<Host>>,
}

/// The hosts of one priority.
#[derive(Debug, Clone)]
pub struct HostSet {
    /// All hosts.
    pub hosts: Vec<Arc<Host>>,
    /// The healthy ones.
    pub healthy: Vec<Arc<Host>>,
    /// The degraded ones.
    pub degraded: Vec<Arc<Host>>,
    /// Those that do not count: never checked, or told at once that they are not to be used.
    pub excluded: Vec<Arc<Host>>,
    /// The same by locality, sorted by locality.
    pub localities: Vec<LocalityHosts>,
    /// `overprovisioning_factor` in percent.
    pub overprovisioning_factor: u32,
    /// `weighted_priority_health`
    pub weighted_health: bool,
}

impl Default for HostSet {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            healthy: Vec::new(),
            degraded: Vec::new(),
            excluded: Vec::new(),
            localities: Vec::new(),
            overprovisioning_factor: 140,
            weighted_health: false,
        }
    }
}

impl HostSet {
    /// Sorts hosts by health.
    pub fn new(mut localities: Vec<LocalityHosts>, overprovisioning_factor: u32, weighted_health: bool) -> Self {
        let mut set = Self {
            overprovisioning_factor,
            weighted_health,
            ..Self::default()
        };
        for locality in &mut localities {
            let of = |health: Health, hosts: &[Arc<Host>]| -> Vec<Arc<Host>> {
                hosts.iter().filter(|h| h.health() == health).cloned().collect()
            };
            locality.healthy = of(Health::Healthy, &locality.hosts);
            locality.degraded = of(Health::Degraded, &locality.hosts);
            locality.excluded = locality.hosts.iter().filter(|h| h.is_excluded()).cloned().collect();
        }
        let mut in_place: Vec<&LocalityHosts> = localities.iter().collect();
        in_place.sort_by_key(|locality| locality.place);
        for locality in in_place {
            set.hosts.extend_from_slice(&locality.hosts);
            set.healthy.extend_from_slice(&locality.healthy);
            set.degraded.extend_from_slice(&locality.degraded);
            set.excluded.extend_from_slice(&locality.excluded);
        }
        set.localities = localities;
        set
    }
}

/// The hosts of a cluster by priority.
#[derive(Debug)]
pub struct HostSets {
    /// Index is the priority.
    pub priorities: Vec<HostSet>,
    /// The share of the load of each priority.
    pub loads: PriorityLoads,
    /// The same hosts by their metadata, for clusters with subsets.
    pub subsets: Option<Subsets>,
    /// What policies that hash keep, shared by all workers.
    pub tables: HashTables,
    /// Requests to answer 503 without picking a host.
    pub drop_overload: Option<DropOverload>,
}

impl HostSets {
    /// Computes the loads; `panic_threshold` in percent.
    pub fn new(priorities: Vec<HostSet>, panic_threshold: f64, drop_overload: Option<DropOverload>) -> Self {
        Self {
            loads: PriorityLoads::new(&priorities, panic_threshold),
            tables: HashTables::new(priorities.len()),
            priorities,
            subsets: None,
            drop_overload,
        }
    }

    /// All hosts of all priorities.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|p| &p.hosts)
    }
}

impl Default for HostSets {
    fn default() -> Self {
        Self::new(vec![HostSet::default()], 50.0, None)
    }
}
