//! Which subset a request is balanced in, and what happens when there is none for it.

use std::sync::Arc;

use xds_protos::google::protobuf::value::Kind;

use super::{Balancer, LbContext, Picked};
use crate::upstream::{
    Host, HostSets,
    config::{Criteria, LbConfig, SelectorFallback, SubsetConfig, SubsetFallback},
    subset::{Subset, Subsets},
};

/// The name of the list of criteria to try one after the other (`FALLBACK_LIST`).
const FALLBACK_LIST: &str = "fallback_list";

/// Balancing state of the subsets of one snapshot; made where it is used first.
#[derive(Default)]
pub struct SubsetBalancers {
    subsets: Vec<Option<Balancer>>,
    any: Option<Box<Balancer>>,
    default: Option<Box<Balancer>>,
}

/// One pick among the subsets.
pub struct SubsetPick<'a> {
    pub subsets: &'a Subsets,
    pub config: &'a LbConfig,
    pub division: &'a SubsetConfig,
    pub cx: &'a LbContext<'a>,
    pub balancers: &'a mut SubsetBalancers,
    pub random: &'a mut fastrand::Rng,
    pub picked: &'a mut Picked,
}

impl SubsetPick<'_> {
    /// Picks a host for the request's criteria, or for the first of its list of criteria that has one.
    pub fn run(&mut self) -> Option<Arc<Host>> {
        let Some(criteria) = self.cx.metadata_match else {
            return self.by_criteria(None);
        };
        let list = match criteria.get(FALLBACK_LIST).and_then(|v| v.kind.as_ref()) {
            Some(_) if !self.division.fallback_list => return self.by_criteria(Some(criteria)),
            None => return self.by_criteria(Some(criteria)),
            Some(Kind::ListValue(list)) => list.values.as_slice(),
            Some(_) => &[],
        };
        let mut criteria = criteria.clone();
        criteria.remove(FALLBACK_LIST);
        if list.is_empty() {
            return self.by_criteria(Some(&criteria));
        }
        list.iter().find_map(|value| {
            let mut merged = criteria.clone();
            if let Some(Kind::StructValue(own)) = &value.kind {
                merged.extend(own.fields.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
            self.by_criteria(Some(&merged))
        })
    }

    fn by_criteria(&mut self, criteria: Option<&Criteria>) -> Option<Arc<Host>> {
        if let Some(criteria) = criteria {
            let reduced = self
                .division
                .allow_redundant_keys
                .then(|| self.reduced(criteria))
                .flatten();
            let criteria = reduced.as_ref().unwrap_or(criteria);
            if let Some((number, subset)) = self.subsets.find(criteria) {
                self.picked.subsets.selected += 1;
                return match subset {
                    Subset::Single(host) => Some(host.clone()),
                    Subset::Hosts(sets) => {
                        let all = &mut self.balancers.subsets;
                        if all.len() <= number {
                            all.resize_with(self.subsets.len(), || None);
                        }
                        let random = &mut *self.random;
                        let balancer = all[number].get_or_insert_with(|| Balancer::new(sets.clone(), random.fork()));
                        balancer.pick_plain(self.config, self.cx, self.picked)
                    }
                };
            }
            let selector = self
                .division
                .selectors
                .iter()
                .find(|s| s.keys.iter().eq(criteria.keys()));
            match selector.and_then(|s| s.fallback.as_ref()) {
                Some(SelectorFallback::To(to)) => return self.fall_back(*to),
                Some(SelectorFallback::Keys(keys)) => {
                    let fewer = criteria.iter().filter(|(k, _)| keys.contains(*k));
                    let fewer: Criteria = fewer.map(|(k, v)| (k.clone(), v.clone())).collect();
                    return self.by_criteria(Some(&fewer));
                }
                None => {}
            }
        }
        if self.division.fallback == SubsetFallback::None {
            return None;
        }
        if let Some(host) = self.fall_back(self.division.fallback) {
            self.picked.subsets.fallback += 1;
            return Some(host);
        }
        let host = self
            .division
            .panic_mode_any
            .then(|| self.fall_back(SubsetFallback::Any))
            .flatten();
        if host.is_some() {
            self.picked.subsets.fallback_panic += 1;
        }
        host
    }

    /// The criteria of the first selector whose keys are all asked for.
    fn reduced(&self, criteria: &Criteria) -> Option<Criteria> {
        let selector = self
            .division
            .selectors
            .iter()
            .find(|s| s.keys.iter().all(|k| criteria.contains_key(k)))?;
        let kept = criteria.iter().filter(|(k, _)| selector.keys.contains(*k));
        Some(kept.map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn fall_back(&mut self, to: SubsetFallback) -> Option<Arc<Host>> {
        let sets: &Arc<HostSets> = self.subsets.fallback(to)?;
        let slot = match to {
            SubsetFallback::Default => &mut self.balancers.default,
            _ => &mut self.balancers.any,
        };
        let random = &mut *self.random;
        let balancer = slot.get_or_insert_with(|| Box::new(Balancer::new(sets.clone(), random.fork())));
        balancer.pick_plain(self.config, self.cx, self.picked)
    }
}
