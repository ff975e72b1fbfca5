//! Load balancing: which host a request goes to. Runs on workers, over the snapshots that control publishes.
//!
//! The order is Envoy's: a host asked for by name; then a priority by the shares of the snapshot; then a locality
//! if localities are weighted; then a host of that set by the policy. A panicking priority offers all its hosts.

mod hashing;
mod policy;
mod priority;
mod subset;
mod zone;

use std::sync::Arc;

use arc_swap::Guard;

pub use hashing::{HashTables, Shares};
pub use policy::client_side_wrr::{self, ReportedWeight};
pub use priority::{Availability, PriorityLoads};
pub use zone::{NotByZone, ZoneKeys, ZonePick, ZoneRouting};

use self::{
    policy::{Edf, Picker},
    subset::{SubsetBalancers, SubsetPick},
};
use super::{
    Health, Host, HostSet, HostSets,
    config::{Criteria, LbConfig, LocalityLb},
};
use crate::http::{RequestHead, StreamInfo};

/// What the choice of a host may depend on. `LbContext::default()` is a plain request.
#[derive(Clone, Copy, Default)]
pub struct LbContext<'a> {
    /// Hash of the request (`hash_policy`), for ring hash and Maglev; random when none.
    pub hash: Option<u64>,
    /// `metadata_match` of route and weighted cluster under `envoy.lb`, merged: chooses the subset.
    pub metadata_match: Option<&'a Criteria>,
    /// Retry host predicates: hosts to pass over, as long as `attempts` last.
    pub rejects: Option<&'a dyn Fn(&Host) -> bool>,
    /// `host_selection_retry_max_attempts`: how often a rejected pick is repeated.
    pub attempts: u32,
    /// Retry priority (`previous_priorities`): priorities to avoid where another has hosts.
    pub avoid_priorities: &'a [u32],
    /// An address to prefer whatever the policy says (stateful session), and whether nothing else will do.
    pub override_host: Option<(&'a str, bool)>,
    /// The request, for balancers that its headers speak to.
    pub head: Option<&'a RequestHead>,
    /// The stream or connection: where it wanted to go, what filters said of it.
    pub info: Option<&'a StreamInfo>,
    /// The priority that was chosen already, by an aggregate.
    pub forced: Option<Forced>,
}

/// A priority and which of its hosts are meant.
pub type Forced = (usize, Availability);

/// What happened besides the pick, for the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Picked {
    /// How often the priority that was chosen panicked.
    pub panics: u64,
    /// How a zone was chosen, where zones count.
    pub zone: Option<ZonePick>,
    /// Which subsets were looked at.
    pub subsets: SubsetsPicked,
}

/// How often subsets were used for one pick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubsetsPicked {
    /// `lb_subsets_selected`
    pub selected: u64,
    /// `lb_subsets_fallback`
    pub fallback: u64,
    /// `lb_subsets_fallback_panic`
    pub fallback_panic: u64,
}

/// A worker's balancing state over one snapshot.
pub struct Balancer {
    sets: Arc<HostSets>,
    pickers: Vec<PriorityPickers>,
    subsets: SubsetBalancers,
    random: fastrand::Rng,
}

/// Lazily made pickers of one priority.
#[derive(Default)]
struct PriorityPickers {
    all: Picker,
    healthy: Picker,
    degraded: Picker,
    localities: Option<Localities>,
}

/// Locality weighted balancing of one priority: one queue of localities per kind, pickers within them.
struct Localities {
    healthy: Edf,
    degraded: Edf,
    healthy_pickers: Vec<Picker>,
    degraded_pickers: Vec<Picker>,
}

impl Balancer {
    /// Starts over `sets`.
    pub fn new(sets: Arc<HostSets>, random: fastrand::Rng) -> Self {
        let mut balancer = Self {
            pickers: Vec::new(),
            subsets: SubsetBalancers::default(),
            sets: Arc::new(HostSets::default()),
            random,
        };
        balancer.replace(sets);
        balancer
    }

    /// Goes on with a new snapshot if it is one.
    #[inline]
    pub fn refresh(&mut self, sets: &Guard<Arc<HostSets>>) {
        if !Arc::ptr_eq(&self.sets, sets) {
            self.replace(Arc::clone(sets));
        }
    }

    /// Priorities that stay as they were go on where they are.
    fn replace(&mut self, sets: Arc<HostSets>) {
        self.subsets = SubsetBalancers::default();
        for (i, pickers) in self.pickers.iter_mut().enumerate() {
            match (self.sets.priorities.get(i), sets.priorities.get(i)) {
                (Some(before), Some(now)) if Arc::ptr_eq(before, now) => {}
                _ => pickers.hosts_changed(),
            }
        }
        self.pickers
            .resize_with(sets.priorities.len(), PriorityPickers::default);
        self.sets = sets;
    }

    /// Picks a host.
    pub fn pick(&mut self, config: &LbConfig, cx: &LbContext<'_>) -> (Option<Arc<Host>>, Picked) {
        if let Some((address, strict)) = cx.override_host {
            let found = self.find(address, config);
            if found.is_some() || strict {
                return (found, Picked::default());
            }
        }
        let mut picked = Picked::default();
        let host = match (&config.subsets, &self.sets.subsets) {
            (Some(division), Some(subsets)) => SubsetPick {
                subsets,
                config,
                division,
                cx,
                balancers: &mut self.subsets,
                random: &mut self.random,
                picked: &mut picked,
            }
            .run(),
            _ => self.pick_plain(config, cx, &mut picked),
        };
        (host, picked)
    }

    /// Picks one of all hosts of the snapshot.
    fn pick_plain(&mut self, config: &LbConfig, cx: &LbContext<'_>, picked: &mut Picked) -> Option<Arc<Host>> {
        if config.policy.uses_hash() {
            return self.pick_hashed(config, cx, picked);
        }
        let mut last = None;
        for _ in 0..=cx.attempts {
            last = self.pick_once(config, cx, picked);
            match (&last, cx.rejects) {
                (Some(host), Some(rejects)) if rejects(host) => {}
                _ => break,
            }
        }
        last
    }

    fn pick_once(&mut self, config: &LbConfig, cx: &LbContext<'_>, picked: &mut Picked) -> Option<Arc<Host>> {
        let sets = &self.sets;
        let avoiding = match cx.avoid_priorities {
            [] => None,
            avoid => sets.loads.without(&sets.priorities, avoid),
        };
        let loads = avoiding.as_ref().unwrap_or(&sets.loads);
        let (priority, availability) = match cx.forced {
            Some(forced) => forced,
            None => loads.choose(self.random.u64(..))?,
        };
        let set = sets.priorities.get(priority)?;
        let pickers = self.pickers.get_mut(priority)?;
        let random = &mut self.random;

        if loads.panic.get(priority).copied().unwrap_or_default() {
            picked.panics += 1;
            if config.fail_traffic_on_panic {
                return None;
            }
            return pickers.all.pick(&set.hosts, config, random);
        }
        if config.locality == LocalityLb::Weighted
            && let Some(host) = pickers.by_locality(set, availability, config, random)
        {
            return Some(host);
        }
        if let (0, Some(zone)) = (priority, &sets.zone) {
            let pick = zone.pick(random);
            picked.zone = Some(pick);
            match pick {
                ZonePick::LocalClusterNotOk if config.fail_traffic_on_panic => return None,
                ZonePick::NotByZone | ZonePick::LocalClusterNotOk => {}
                ZonePick::Direct | ZonePick::Sampled => {
                    return pickers.in_locality(set, 0, availability, config, random);
                }
                ZonePick::CrossZone(zone) | ZonePick::NoCapacityLeft(zone) => {
                    return pickers.in_locality(set, zone, availability, config, random);
                }
            }
        }
        match availability {
            Availability::Healthy => pickers.healthy.pick(&set.healthy, config, random),
            Availability::Degraded => pickers.degraded.pick(&set.degraded, config, random),
        }
    }

    /// Picks by the hash of the request, or any where it has none: the priority too. Retry priorities do not count.
    fn pick_hashed(&mut self, config: &LbConfig, cx: &LbContext<'_>, picked: &mut Picked) -> Option<Arc<Host>> {
        let hash = cx.hash.unwrap_or_else(|| self.random.u64(..));
        let sets = &self.sets;
        let (priority, _) = sets.loads.choose(hash)?;
        picked.panics += u64::from(sets.loads.panic.get(priority).copied().unwrap_or_default());
        let table = sets.table(priority, config)?;
        let mut last = None;
        for attempt in 0..=cx.attempts {
            last = table.choose(hash, attempt, sets.hosts());
            match (&last, cx.rejects) {
                (Some(host), Some(rejects)) if rejects(host) => {}
                _ => break,
            }
        }
        last
    }

    fn find(&self, address: &str, config: &LbConfig) -> Option<Arc<Host>> {
        let host = self.sets.hosts().find(|h| h.address.to_string() == address)?;
        use xds_protos::envoy::config::core::v3::HealthStatus as S;
        let statuses: &[S] = match host.health() {
            Health::Healthy => &[S::Healthy, S::Unknown],
            Health::Degraded => &[S::Degraded],
            Health::Unhealthy => &[S::Unhealthy, S::Draining, S::Timeout],
        };
        config
            .override_statuses
            .iter()
            .any(|s| statuses.contains(s))
            .then(|| host.clone())
    }
}

impl PriorityPickers {
    fn hosts_changed(&mut self) {
        self.all.hosts_changed();
        self.healthy.hosts_changed();
        self.degraded.hosts_changed();
        self.localities = None;
    }

    fn by_locality(
        &mut self,
        set: &HostSet,
        availability: Availability,
        config: &LbConfig,
        random: &mut fastrand::Rng,
    ) -> Option<Arc<Host>> {
        let state = self.localities.get_or_insert_with(|| Localities::new(set, random));
        let edf = match availability {
            Availability::Healthy => &mut state.healthy,
            Availability::Degraded => &mut state.degraded,
        };
        let index = edf.pick(|i| locality_weight(set, i, availability))?;
        self.in_locality(set, index, availability, config, random)
    }

    /// Picks a host of one locality.
    fn in_locality(
        &mut self,
        set: &HostSet,
        index: usize,
        availability: Availability,
        config: &LbConfig,
        random: &mut fastrand::Rng,
    ) -> Option<Arc<Host>> {
        let state = self.localities.get_or_insert_with(|| Localities::new(set, random));
        let locality = set.localities.get(index)?;
        let (hosts, pickers) = match availability {
            Availability::Healthy => (&locality.healthy, &mut state.healthy_pickers),
            Availability::Degraded => (&locality.degraded, &mut state.degraded_pickers),
        };
        pickers.get_mut(index)?.pick(hosts, config, random)
    }
}

impl Localities {
    fn new(set: &HostSet, random: &mut fastrand::Rng) -> Self {
        let count = set.localities.len();
        let mut edf = |which| Edf::starting_anywhere((0..count).map(|i| locality_weight(set, i, which)), random);
        let none = || std::iter::repeat_with(Picker::default).take(count).collect();
        Self {
            healthy: edf(Availability::Healthy),
            degraded: edf(Availability::Degraded),
            healthy_pickers: none(),
            degraded_pickers: none(),
        }
    }
}

/// The weight of a locality, lowered as far as its hosts do not suffice for it.
fn locality_weight(set: &HostSet, index: usize, which: Availability) -> f64 {
    let Some(locality) = set.localities.get(index) else {
        return 0.0;
    };
    let available = match which {
        Availability::Healthy => locality.healthy.len(),
        Availability::Degraded => locality.degraded.len(),
    };
    let counted = locality.hosts.len().saturating_sub(locality.excluded.len());
    if counted == 0 {
        return 0.0;
    }
    let ratio = available as f64 / counted as f64;
    f64::from(locality.weight) * (f64::from(set.overprovisioning_factor) / 100.0 * ratio).min(1.0)
}

#[cfg(test)]
mod tests;
