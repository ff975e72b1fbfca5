//! Zone-aware routing: as much of the load as is fair stays in this proxy's own zone, the rest goes to zones that have
//! more hosts than proxies.
//!
//! Control compares the zones of a cluster's first priority with those of the local cluster (the proxies themselves)
//! whenever one of them changes; a pick is then a draw or two. All shares are in hundredths of a percent.

use std::{collections::HashMap, sync::Arc};

use crate::{
    runtime::Key,
    upstream::{Host, HostSet, Locality, LocalityHosts, config::ZoneAware},
};

/// All of it.
const WHOLE: u64 = 10_000;

/// How the first priority of a cluster is shared among zones.
#[derive(Debug, Clone)]
pub struct ZoneRouting {
    plan: Plan,
    /// Share of the local cluster's hosts that may be used, in percent: below the panic threshold zones do not count.
    local_usable: f64,
    keys: ZoneKeys,
    /// Percentage of requests that are routed by zone, if the runtime does not say.
    enabled: u64,
    panic_threshold: f64,
}

/// What the runtime may say for each request.
#[derive(Debug, Clone, Default)]
pub struct ZoneKeys {
    /// `upstream.zone_routing.enabled`, percent
    pub enabled: Key,
    /// `upstream.healthy_panic_threshold`, percent
    pub panic_threshold: Key,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    /// The own zone takes everything.
    Direct,
    /// The own zone takes a part.
    Residual {
        /// The part.
        to_local: u64,
        /// What each zone can take besides, added up from the first.
        residual: Vec<u64>,
    },
}

/// Why zones do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotByZone {
    /// There is but one zone, here or there.
    OneZone,
    /// The local cluster has no host in this proxy's zone.
    LocalClusterNotOk,
    /// Too few healthy hosts.
    ClusterTooSmall,
}

/// Where one request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZonePick {
    /// This one is not routed by zone.
    NotByZone,
    /// Too few proxies are well to know anything.
    LocalClusterNotOk,
    /// To the own zone, as all are.
    Direct,
    /// To the own zone, by draw.
    Sampled,
    /// To the zone of this number.
    CrossZone(usize),
    /// To the zone of this number, though none has anything to spare.
    NoCapacityLeft(usize),
}

impl ZoneRouting {
    /// Compares the zones of `set` with those of the `local` cluster; `panic_threshold` is the configured one.
    pub fn new(
        config: &ZoneAware,
        set: &HostSet,
        local: &HostSet,
        panic_threshold: f64,
        keys: ZoneKeys,
    ) -> Result<Self, NotByZone> {
        if set.localities.len() < 2 || config.force_local_zone.is_none() && local.localities.len() < 2 {
            return Err(NotByZone::OneZone);
        }
        if local.local_locality().is_none() {
            return Err(NotByZone::LocalClusterNotOk);
        }
        if (set.healthy.len() as u64) < config.min_cluster_size {
            return Err(NotByZone::ClusterTooSmall);
        }
        Ok(Self {
            plan: Plan::new(config, set, local),
            local_usable: super::priority::usable_percent(local),
            keys,
            enabled: config.routing_enabled,
            panic_threshold,
        })
    }

    /// Draws a zone for one request.
    pub fn pick(&self, random: &mut fastrand::Rng) -> ZonePick {
        if !self.keys.enabled.percent_feature(self.enabled, random.u64(..)) {
            return ZonePick::NotByZone;
        }
        let threshold = match self.keys.panic_threshold.integer(u64::MAX) {
            u64::MAX => self.panic_threshold,
            percent => percent.min(100) as f64,
        };
        if self.local_usable < threshold {
            return ZonePick::LocalClusterNotOk;
        }
        self.plan.pick(random)
    }
}

impl Plan {
    fn new(config: &ZoneAware, set: &HostSet, local: &HostSet) -> Self {
        let measure = |hosts: &[Arc<Host>]| match config.by_weight {
            true => hosts.iter().map(|h| u64::from(h.weight())).sum(),
            false => hosts.len() as u64,
        };
        let upstream: Vec<u64> = set.localities.iter().map(|l| measure(&l.healthy)).collect();
        let local: HashMap<&Locality, u64> = local
            .localities
            .iter()
            .map(|l| (&*l.locality, measure(&l.healthy)))
            .collect();
        let share = |of: u64, all: u64| (of * WHOLE).checked_div(all).unwrap_or(0);
        let (all, all_local) = (upstream.iter().sum(), local.values().sum());
        let percentages = |(locality, measured): (&LocalityHosts, &u64)| match locality.healthy.is_empty() {
            true => (0, 0),
            false => {
                let proxies = local.get(&*locality.locality).copied().unwrap_or(0);
                (share(proxies, all_local), share(*measured, all))
            }
        };
        let shares: Vec<(u64, u64)> = set.localities.iter().zip(&upstream).map(percentages).collect();
        let mut to_local = 0;
        if let (Some(own), Some((proxies, hosts))) = (set.local_locality(), shares.first().copied()) {
            let forced = config
                .force_local_zone
                .is_some_and(|min| own.healthy.len() >= min as usize);
            if forced || hosts > 0 && hosts >= proxies {
                return Self::Direct;
            }
            to_local = share(hosts, proxies);
        }
        let mut sum = 0;
        let residual = shares.iter().enumerate().map(|(i, (proxies, hosts))| {
            if i > 0 || !set.has_local_locality {
                sum += hosts.saturating_sub(*proxies);
            }
            sum
        });
        Self::Residual {
            residual: residual.collect(),
            to_local,
        }
    }

    fn pick(&self, random: &mut fastrand::Rng) -> ZonePick {
        match self {
            Self::Direct => ZonePick::Direct,
            Self::Residual { to_local, .. } if random.u64(..WHOLE) < *to_local => ZonePick::Sampled,
            Self::Residual { residual, .. } => match residual.last() {
                None | Some(0) => ZonePick::NoCapacityLeft(random.usize(..residual.len().max(1))),
                Some(all) => {
                    let draw = random.u64(..*all);
                    ZonePick::CrossZone(residual.partition_point(|sum| *sum <= draw))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
