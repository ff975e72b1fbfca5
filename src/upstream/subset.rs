//! The hosts of a cluster divided into subsets by their metadata: made by control with each snapshot, for all workers.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use xds_protos::google::protobuf::{Value, value::Kind};

use super::{
    Host, HostSet, HostSets, LocalityHosts,
    config::{Criteria, SubsetConfig, SubsetFallback},
    host_set::only,
    lb::ZoneRouting,
};

/// The subsets of one snapshot.
#[derive(Debug, Default)]
pub struct Subsets {
    hasher: foldhash::fast::FixedState,
    by_hash: HashMap<u64, Vec<usize>>,
    subsets: Vec<(Criteria, Subset)>,
    /// All hosts, for fallbacks.
    pub any: Arc<HostSets>,
    /// The hosts of the default subset, for fallbacks.
    pub default: Arc<HostSets>,
    /// Hosts that were left out of subsets of a single host, which had one already.
    pub duplicates: u64,
}

/// One subset, which has at least one host.
#[derive(Debug, Clone)]
pub enum Subset {
    /// Balanced as the cluster is.
    Hosts(Arc<HostSets>),
    /// `single_host_per_subset`: that host, whatever its health.
    Single(Arc<Host>),
}

/// The hosts of a subset while they are gathered.
struct Gathered {
    hosts: BTreeSet<usize>,
    single: Option<Arc<Host>>,
}

impl Subsets {
    /// Divides the hosts of `priorities`; `zone` says how the zones of a subset's first priority are used.
    pub fn new(
        config: &SubsetConfig,
        priorities: &[Arc<HostSet>],
        panic_threshold: f64,
        zone: &dyn Fn(Option<&Arc<HostSet>>) -> Option<ZoneRouting>,
    ) -> Self {
        let mut gathered: Vec<(Criteria, Gathered)> = Vec::new();
        let mut this = Self::default();
        for priority in priorities {
            for host in priority.hosts.iter() {
                for selector in &config.selectors {
                    for criteria in memberships(&selector.keys, host, config.list_as_any) {
                        let at = this.find_in(&criteria, |i| &gathered[i].0).unwrap_or_else(|| {
                            let hash = this.hash(&criteria);
                            this.by_hash.entry(hash).or_default().push(gathered.len());
                            let empty = Gathered {
                                hosts: BTreeSet::new(),
                                single: None,
                            };
                            gathered.push((criteria, empty));
                            gathered.len() - 1
                        });
                        let subset = &mut gathered[at].1;
                        if !selector.single_host {
                            subset.hosts.insert(Arc::as_ptr(host).addr());
                        } else if subset.single.is_none() {
                            subset.single = Some(host.clone());
                        } else {
                            this.duplicates += 1;
                        }
                    }
                }
            }
        }
        let sets = |wanted: &dyn Fn(&Host) -> bool| {
            let priorities = priorities.iter().map(|p| filtered(p, config, wanted)).collect();
            let mut sets = HostSets::new(priorities, panic_threshold, None);
            sets.zone = zone(sets.priorities.first());
            Arc::new(sets)
        };
        this.subsets = gathered
            .into_iter()
            .map(|(criteria, gathered)| {
                let subset = match gathered.single {
                    Some(host) => Subset::Single(host),
                    None => Subset::Hosts(sets(&|h| gathered.hosts.contains(&std::ptr::from_ref(h).addr()))),
                };
                (criteria, subset)
            })
            .collect();
        this.any = sets(&|_| true);
        this.default = sets(&|h| matches(&config.default, h, config.list_as_any));
        this
    }

    /// The subset for exactly these criteria, with its number.
    pub fn find(&self, criteria: &Criteria) -> Option<(usize, &Subset)> {
        let at = self.find_in(criteria, |i| &self.subsets[i].0)?;
        Some((at, &self.subsets[at].1))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.subsets.len()
    }

    /// How many of them are not among those of `others`.
    pub fn new_since(&self, others: &Self) -> usize {
        self.subsets.iter().filter(|(c, _)| others.find(c).is_none()).count()
    }

    fn find_in<'a>(&'a self, criteria: &Criteria, of: impl Fn(usize) -> &'a Criteria) -> Option<usize> {
        let numbers = self.by_hash.get(&self.hash(criteria))?;
        numbers.iter().copied().find(|i| of(*i) == criteria)
    }

    fn hash(&self, criteria: &Criteria) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for (key, value) in criteria {
            key.hash(&mut hasher);
            self.hash_value(value, &mut hasher);
        }
        hasher.finish()
    }

    fn hash_value(&self, value: &Value, hasher: &mut impl Hasher) {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => 0_u8.hash(hasher),
            Some(Kind::NumberValue(n)) => n.to_bits().hash(hasher),
            Some(Kind::StringValue(s)) => s.hash(hasher),
            Some(Kind::BoolValue(b)) => b.hash(hasher),
            Some(Kind::ListValue(list)) => list.values.iter().for_each(|v| self.hash_value(v, hasher)),
            // Fields have no order.
            Some(Kind::StructValue(s)) => {
                let sum = s.fields.iter().fold(0_u64, |sum, (key, value)| {
                    let mut field = self.hasher.build_hasher();
                    key.hash(&mut field);
                    self.hash_value(value, &mut field);
                    sum.wrapping_add(field.finish())
                });
                sum.hash(hasher);
            }
        }
    }
}

/// What the hosts of a fallback are.
impl Subsets {
    /// The hosts for a fallback; none where there is no fallback.
    pub fn fallback(&self, to: SubsetFallback) -> Option<&Arc<HostSets>> {
        match to {
            SubsetFallback::None => None,
            SubsetFallback::Any => Some(&self.any),
            SubsetFallback::Default => Some(&self.default),
        }
    }
}

/// The subsets of a selector that a host belongs to: several where values are lists of which each element counts.
fn memberships(keys: &BTreeSet<String>, host: &Host, list_as_any: bool) -> Vec<Criteria> {
    let attributes = host.attributes();
    let Some(metadata) = attributes.metadata.get("envoy.lb") else {
        return Vec::new();
    };
    let mut all = vec![Criteria::new()];
    for key in keys {
        let Some(value) = metadata.fields.get(key) else {
            return Vec::new();
        };
        let values = match &value.kind {
            Some(Kind::ListValue(list)) if list_as_any => list.values.as_slice(),
            _ => std::slice::from_ref(value),
        };
        all = all
            .iter()
            .flat_map(|criteria| {
                values.iter().map(|value| {
                    let mut criteria = criteria.clone();
                    criteria.insert(key.clone(), value.clone());
                    criteria
                })
            })
            .collect();
    }
    all.retain(|criteria| !criteria.is_empty());
    all
}

/// Whether a host has all of these values.
fn matches(criteria: &Criteria, host: &Host, list_as_any: bool) -> bool {
    let attributes = host.attributes();
    let metadata = attributes.metadata.get("envoy.lb");
    criteria.iter().all(|(key, wanted)| {
        let Some(value) = metadata.and_then(|m| m.fields.get(key)) else {
            return false;
        };
        match &value.kind {
            Some(Kind::ListValue(list)) if list_as_any => list.values.contains(wanted),
            _ => value == wanted,
        }
    })
}

/// One priority with only some of its hosts.
fn filtered(set: &HostSet, config: &SubsetConfig, wanted: &dyn Fn(&Host) -> bool) -> HostSet {
    let localities = set.localities.iter().map(|locality| {
        let hosts = only(&locality.hosts, wanted);
        let weight = match config.locality_weight_aware {
            false => 0,
            true if config.scale_locality_weight && !locality.hosts.is_empty() => {
                let share = hosts.len() as f64 / locality.hosts.len() as f64;
                // A weight is at most what it was before, which fits.
                (f64::from(locality.weight) * share).round() as u32
            }
            true => locality.weight,
        };
        LocalityHosts::new(locality.locality.clone(), weight, hosts)
    });
    HostSet {
        has_local_locality: set.has_local_locality,
        weightless: !config.locality_weight_aware,
        ..HostSet::in_order(
            only(&set.hosts, wanted),
            localities.collect(),
            set.overprovisioning_factor,
            set.weighted_health,
        )
    }
}

#[cfg(test)]
mod tests;
