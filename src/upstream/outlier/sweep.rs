//! The end of an interval: hosts whose time is over come back, hosts are compared, who behaves is forgiven step by step.

use std::sync::{Arc, PoisonError, Weak};

use tokio::time::Instant;

use super::{Cause, OutlierDetector};
use crate::{
    server::ServerContext,
    upstream::{Cluster, Host, host::HealthFlag},
};

/// Starts a cluster's timer; it ends with the cluster.
pub fn start(cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
    if cluster.info.outlier.is_none() {
        return;
    }
    let (cluster, context): (Weak<Cluster>, _) = (Arc::downgrade(cluster), server.clone());
    server.mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            loop {
                let keys = &context.runtime.known.outlier_detection;
                let interval = cluster
                    .upgrade()
                    .and_then(|c| Some(c.info.outlier.as_ref()?.config.interval(keys)));
                let Some(interval) = interval else { return };
                tokio::time::sleep(interval).await;
                let Some(cluster) = cluster.upgrade() else { return };
                if let Some(detector) = &cluster.info.outlier {
                    detector.sweep(&cluster, &context);
                }
            }
        });
    });
}

impl OutlierDetector {
    fn sweep(&self, cluster: &Arc<Cluster>, server: &ServerContext) {
        let now = Instant::now();
        let hosts: Vec<_> = cluster.hosts.load().hosts().cloned().collect();
        let changed = hosts.iter().fold(false, |changed, host| {
            changed | self.forgive(cluster, host, now, server)
        });
        if changed {
            cluster.refresh_health(server);
        }
        let keys = &server.runtime.known.outlier_detection;
        for local in [false, true] {
            let (bad, threshold) = self.config.comparison.finish(&hosts, local, keys);
            self.compared.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(local)] = threshold;
            for (host, cause) in bad {
                if matches!(cause, Cause::SuccessRate | Cause::LocalOriginSuccessRate) {
                    self.stats.local().ejections_success_rate.inc();
                }
                self.eject(cluster, &host, cause, server);
            }
        }
        let interval = self.config.interval(keys);
        for host in hosts.iter().filter(|h| h.outlier_if_any().is_some()) {
            let mut ejection = host.outlier().ejection();
            if !host.has_flag(HealthFlag::FailedOutlierCheck) {
                ejection.ejected.decay(interval, now);
            }
            if !host.has_flag(HealthFlag::DegradedOutlierDetection) {
                ejection.degraded.decay(interval, now);
            }
        }
    }

    /// Lets a host back whose time is over. Tells whether anything changed.
    fn forgive(&self, cluster: &Cluster, host: &Host, now: Instant, server: &ServerContext) -> bool {
        let Some(counters) = host.outlier_if_any() else {
            return false;
        };
        let times = self.config.times(&server.runtime.known.outlier_detection);
        let (ejection_over, degradation_over) = {
            let ejection = counters.ejection();
            (
                ejection.ejected.is_over(&times, now),
                ejection.degraded.is_over(&times, now),
            )
        };
        let back = ejection_over && host.has_flag(HealthFlag::FailedOutlierCheck);
        if back {
            self.let_back(cluster, host, server);
        }
        let well = degradation_over && host.has_flag(HealthFlag::DegradedOutlierDetection);
        if well {
            self.no_longer_degraded(cluster, host, server);
        }
        back || well
    }
}
