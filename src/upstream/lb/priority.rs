//! Which priority a request goes to: spill-over, panic, and what is left when everything is bad.

use std::{borrow::Borrow, sync::Arc};

use crate::upstream::{Host, HostSet};

/// Which hosts of a priority are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
}

/// The shares of the priorities, in percent: both lists together make 100.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriorityLoads {
    /// Share of each priority's healthy hosts.
    pub healthy: Vec<u32>,
    /// Share of each priority's degraded hosts.
    pub degraded: Vec<u32>,
    /// Whether a priority panics: then health does not matter there.
    pub panic: Vec<bool>,
}

impl PriorityLoads {
    /// The shares for these priorities; `panic_threshold` in percent, 0 switches panic off.
    pub fn new<S: Borrow<HostSet>>(sets: &[S], panic_threshold: f64) -> Self {
        let (healthy, degraded, total) = available(sets, &[]);
        let mut loads = Self {
            healthy: vec![0; sets.len()],
            degraded: vec![0; sets.len()],
            panic: vec![false; sets.len()],
        };
        if total > 0 {
            loads.distribute(&healthy, &degraded, total);
        }
        if total == 0 && panic_threshold <= 0.0 {
            if let Some(first) = loads.healthy.first_mut() {
                *first = 100;
            }
            return loads;
        }
        for (panic, set) in loads.panic.iter_mut().zip(sets) {
            *panic = total < 100 && usable_percent(set.borrow()) < panic_threshold.min(100.0);
        }
        if loads.panic.iter().all(|p| *p) {
            loads.total_panic(sets);
        }
        loads
    }

    /// The same with some priorities left out (retry priorities); none if the others have nothing to offer. Who
    /// panics does so still.
    pub fn without<S: Borrow<HostSet>>(&self, sets: &[S], avoid: &[u32]) -> Option<Self> {
        let (healthy, degraded, total) = available(sets, avoid);
        let mut loads = Self {
            healthy: vec![0; sets.len()],
            degraded: vec![0; sets.len()],
            panic: self.panic.clone(),
        };
        (total > 0).then(|| {
            loads.distribute(&healthy, &degraded, total);
            loads
        })
    }

    /// Healthy hosts first, degraded ones with what is left; rounding goes to the first priority that has any.
    fn distribute(&mut self, healthy: &[u32], degraded: &[u32], total: u32) {
        let mut left = 100;
        let mut share = |loads: &mut [u32], available: &[u32]| {
            let mut first = None;
            for (i, (load, available)) in loads.iter_mut().zip(available).enumerate() {
                if *available > 0 && first.is_none() {
                    first = Some(i);
                }
                *load = left.min(available * 100 / total);
                left -= *load;
            }
            first
        };
        let first_healthy = share(&mut self.healthy, healthy);
        let first_degraded = share(&mut self.degraded, degraded);
        match (first_healthy, first_degraded) {
            (Some(i), _) => self.healthy[i] += left,
            (None, Some(i)) => self.degraded[i] += left,
            (None, None) => {}
        }
    }

    /// Every priority panics: by number of hosts.
    fn total_panic<S: Borrow<HostSet>>(&mut self, sets: &[S]) {
        let count = |s: &S| s.borrow().hosts.len();
        let total: usize = sets.iter().map(count).sum();
        if total == 0 {
            if let Some(first) = self.healthy.first_mut() {
                *first = 100;
            }
            return;
        }
        let mut left = 100;
        for (i, set) in sets.iter().enumerate() {
            self.healthy[i] = u32::try_from(100 * count(set) / total).unwrap_or(100);
            self.degraded[i] = 0;
            left -= self.healthy[i];
        }
        if let Some(first) = sets.iter().position(|s| count(s) > 0) {
            self.healthy[first] += left;
        }
    }

    /// The priority and the hosts for this draw.
    pub fn choose(&self, random: u64) -> Option<(usize, Availability)> {
        let draw = u32::try_from(random % 100).unwrap_or(0) + 1;
        let mut sum = 0;
        for (loads, availability) in [
            (&self.healthy, Availability::Healthy),
            (&self.degraded, Availability::Degraded),
        ] {
            for (i, load) in loads.iter().enumerate() {
                sum += load;
                if draw <= sum {
                    return Some((i, availability));
                }
            }
        }
        None
    }
}

/// How far the healthy and the degraded hosts of each priority suffice, and both together, all in percent. Those of
/// priorities to `avoid` do not.
fn available<S: Borrow<HostSet>>(sets: &[S], avoid: &[u32]) -> (Vec<u32>, Vec<u32>, u32) {
    let each = |which| -> Vec<u32> {
        let all = sets.iter().enumerate();
        all.map(|(i, set)| match avoid.iter().any(|a| *a as usize == i) {
            true => 0,
            false => availability(set.borrow(), which),
        })
        .collect()
    };
    let (healthy, degraded) = (each(Availability::Healthy), each(Availability::Degraded));
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    (healthy, degraded, total)
}

/// How far a priority's hosts of this kind suffice for all the load, in percent.
fn availability(set: &HostSet, which: Availability) -> u32 {
    let some = match which {
        Availability::Healthy => &set.healthy,
        Availability::Degraded => &set.degraded,
    };
    let measure = |hosts: &[Arc<Host>]| -> u64 {
        match set.weighted_health {
            true => hosts.iter().map(|h| u64::from(h.weight())).sum(),
            false => hosts.len() as u64,
        }
    };
    let all = measure(&set.hosts).saturating_sub(measure(&set.excluded));
    if all == 0 {
        return 0;
    }
    let share = u64::from(set.overprovisioning_factor) * measure(some) / all;
    u32::try_from(share.min(100)).unwrap_or(100)
}

/// The share of hosts that are healthy or degraded, in percent: below the panic threshold a priority panics.
pub fn usable_percent(set: &HostSet) -> f64 {
    let all = set.hosts.len() - set.excluded.len().min(set.hosts.len());
    let percent = |n: usize| if all == 0 { 0.0 } else { 100.0 * n as f64 / all as f64 };
    percent(set.healthy.len()) + percent(set.degraded.len())
}
