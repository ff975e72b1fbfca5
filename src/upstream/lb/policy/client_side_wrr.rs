//! `client_side_weighted_round_robin`: weights from what hosts report of their load. Workers note the reports, control
//! makes weights of them, and round robin goes by those.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use xds_protos::xds::data::orca::v3::OrcaLoadReport;

use crate::{
    server::ServerContext,
    upstream::{Cluster, Host, config::ClientSideWrr, host::now, orca},
};

/// When nothing was reported.
const NEVER: u64 = u64::MAX;

/// The weight that a host reported, with times in milliseconds of [`now`].
#[derive(Debug)]
pub struct ReportedWeight {
    weight: AtomicU32,
    /// Since when it reports without a pause.
    since: AtomicU64,
    last: AtomicU64,
}

impl Default for ReportedWeight {
    fn default() -> Self {
        Self {
            weight: AtomicU32::new(1),
            since: AtomicU64::new(NEVER),
            last: AtomicU64::new(0),
        }
    }
}

impl ReportedWeight {
    /// A report came.
    fn set(&self, weight: u32, now: u64) {
        self.weight.store(weight, Relaxed);
        self.last.store(now, Relaxed);
        let _ = self.since.compare_exchange(NEVER, now, Relaxed, Relaxed);
    }

    /// The weight, if it was reported for long enough and not too long ago.
    fn get(&self, config: &ClientSideWrr, now: u64) -> Option<u32> {
        let since = self.since.load(Relaxed);
        if since == NEVER || now.saturating_sub(since) < millis(config.blackout) {
            return None;
        }
        if now.saturating_sub(self.last.load(Relaxed)) > millis(config.expiration) {
            self.since.store(NEVER, Relaxed);
            return None;
        }
        Some(self.weight.load(Relaxed))
    }
}

/// Notes a host's report, if it says anything.
pub fn note(host: &Host, report: &OrcaLoadReport, config: &ClientSideWrr) {
    if let Some(weight) = weight_of(report, config) {
        host.reported_weight_mut().set(weight, now());
    }
}

/// `rps / (utilization + penalty * eps / rps)`; none where that says nothing.
fn weight_of(report: &OrcaLoadReport, config: &ClientSideWrr) -> Option<u32> {
    let rps = report.rps_fractional;
    if rps <= 0.0 {
        return None;
    }
    let utilization = [
        orca::greatest(report, &config.metrics),
        report.application_utilization,
        report.cpu_utilization,
    ];
    let utilization = utilization.into_iter().find(|u| *u > 0.0).unwrap_or(0.0);
    let utilization = utilization + config.error_penalty * report.eps / rps;
    // A cast of too large a number gives the greatest weight.
    (utilization > 0.0).then(|| (rps / utilization) as u32)
}

/// Gives hosts their reported weights, and the median to those without. Tells whether any changed.
fn update(hosts: &[Arc<Host>], config: &ClientSideWrr) -> bool {
    let now = now();
    let reported: Vec<Option<u32>> = hosts
        .iter()
        .map(|host| host.reported_weight().and_then(|r| r.get(config, now)))
        .collect();
    let mut known: Vec<u32> = reported.iter().copied().flatten().collect();
    let median = median(&mut known);
    let weights = reported.into_iter().map(|weight| weight.unwrap_or(median));
    hosts
        .iter()
        .zip(weights)
        .fold(false, |changed, (host, weight)| host.set_weight(weight) | changed)
}

/// The middle one, or the mean of the two in the middle; 1 where there is none.
fn median(weights: &mut [u32]) -> u32 {
    weights.sort_unstable();
    let middle = weights.len() / 2;
    match weights {
        [] => 1,
        all if all.len() % 2 == 1 => all[middle],
        all => all[middle - 1].midpoint(all[middle]),
    }
}

/// Starts the timer that makes weights of reports; it ends with the cluster.
pub fn start(cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
    let Some(period) = cluster.info.lb.client_side.as_ref().map(|c| c.update) else {
        return;
    };
    let (cluster, context): (Weak<Cluster>, _) = (Arc::downgrade(cluster), server.clone());
    server.mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(cluster) = cluster.upgrade() else { return };
                let Some(config) = &cluster.info.lb.client_side else {
                    return;
                };
                let sets = cluster.hosts.load_full();
                let changed = sets
                    .priorities
                    .iter()
                    .fold(false, |changed, set| update(&set.hosts, config) | changed);
                if changed {
                    cluster.weights_changed(&context);
                }
            }
        });
    });
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::Address, upstream::HostAttributes};

    fn config() -> ClientSideWrr {
        ClientSideWrr {
            blackout: Duration::ZERO,
            expiration: Duration::from_secs(60),
            update: Duration::from_secs(1),
            error_penalty: 2.0,
            metrics: vec!["named_metrics.load".into()],
        }
    }

    #[test]
    fn weights_are_work_by_load() {
        let report = OrcaLoadReport {
            rps_fractional: 100.0,
            eps: 10.0,
            cpu_utilization: 0.9,
            application_utilization: 0.3,
            ..Default::default()
        };
        assert_eq!(weight_of(&report, &config()), Some(200), "100 / (0.3 + 2 * 0.1)");
        let named = OrcaLoadReport {
            named_metrics: [("load".to_owned(), 0.8)].into(),
            ..report.clone()
        };
        assert_eq!(weight_of(&named, &config()), Some(100));
        let idle = OrcaLoadReport {
            rps_fractional: 0.0,
            ..report
        };
        assert_eq!(weight_of(&idle, &config()), None);
    }

    #[test]
    fn who_reports_nothing_weighs_as_the_middle() {
        let hosts: Vec<Arc<Host>> = (1..=4)
            .map(|n| {
                let address = Address::Ip(([10, 0, 0, n], 80).into());
                Arc::new(Host::new(address, "", 7, HostAttributes::default()))
            })
            .collect();
        hosts[0].reported_weight_mut().set(10, now());
        hosts[1].reported_weight_mut().set(30, now());
        hosts[2].reported_weight_mut().set(31, now());
        assert!(update(&hosts, &config()));
        let weights: Vec<u32> = hosts.iter().map(|h| h.weight()).collect();
        assert_eq!(weights, [10, 30, 31, 30]);
        assert!(!update(&hosts, &config()), "nothing changed since");
        let later = ClientSideWrr {
            blackout: Duration::from_secs(60),
            ..config()
        };
        update(&hosts, &later);
        assert_eq!(hosts[0].weight(), 1, "no report counts yet");
    }
}
