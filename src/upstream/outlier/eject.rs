//! Hosts go and come back: on control.

use std::sync::{Arc, PoisonError, atomic::Ordering::Relaxed};

use super::{Cause, OutlierDetector, events::Happened, rates::Threshold};
use crate::{
    server::ServerContext,
    upstream::{Cluster, Host, host::HealthFlag},
};

impl OutlierDetector {
    /// Ejects a host after failures in a row.
    pub(super) fn eject_after_failures(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        cause: Cause,
        server: &ServerContext,
    ) {
        if host.is_removed() || host.has_flag(HealthFlag::FailedOutlierCheck) {
            return;
        }
        self.eject(cluster, host, cause, server);
        let counters = host.outlier();
        let counter = match cause {
            Cause::GatewayFailure => &counters.gateway,
            Cause::LocalOrigin => &counters.local,
            _ => {
                self.stats.local().ejections_consecutive_5xx.inc();
                &counters.consecutive_5xx
            }
        };
        counter.store(0, Relaxed);
    }

    /// Ejects a host as far as the others leave room for it.
    pub(super) fn eject(&self, cluster: &Arc<Cluster>, host: &Arc<Host>, cause: Cause, server: &ServerContext) {
        let stats = self.stats.local();
        let keys = &server.runtime.known.outlier_detection;
        let rule = cause.rule(&self.config);
        (rule.detected)(stats).inc();
        if !self.has_room(cluster, server) {
            stats.ejections_overflow.inc();
            return;
        }
        let enforced = (rule.key)(keys).percent_feature(rule.percent.into(), fastrand::u64(..));
        if enforced && host.has_flag(HealthFlag::FailedOutlierCheck) {
            // Another comparison of the same interval did it.
            return;
        }
        if matches!(cause, Cause::Consecutive5xx | Cause::SuccessRate) {
            stats.ejections_total.inc();
        }
        if enforced {
            stats.ejections_enforced_total.inc();
            (rule.enforced)(stats).inc();
            {
                let mut ejection = host.outlier().ejection();
                ejection.count += 1;
                ejection.ejected.begin(&self.config.times(keys));
            }
            host.set_flag(HealthFlag::FailedOutlierCheck, true);
            cluster.host_failed(host, server);
            tracing::debug!(cluster = %cluster.info.name, host = %host.address, ?cause, "host ejected");
            cluster.refresh_health(server);
            self.ejected.fetch_add(1, Relaxed);
            stats.ejections_active.inc();
        }
        self.write(Happened::Ejected { cause, enforced }, cluster, host, server);
    }

    /// Whether one more may be ejected. It counts itself: in a small cluster the default share leaves room for nobody.
    fn has_room(&self, cluster: &Cluster, server: &ServerContext) -> bool {
        let ejected = self.ejected.load(Relaxed);
        if self.config.always_eject_one && ejected == 0 {
            return true;
        }
        let key = &server.runtime.known.outlier_detection.max_ejection_percent;
        let percent = key.integer(self.config.max_ejection_percent.into()).min(100);
        let all = cluster.hosts.load().hosts().count().max(1) as u64;
        (ejected + 1) * 100 <= percent * all
    }

    /// Lets a host back in: its flag is cleared, its counts do not count any more.
    pub(super) fn let_back(&self, cluster: &Cluster, host: &Host, server: &ServerContext) {
        let counters = host.outlier();
        counters.ejection().ejected.end();
        counters.reset();
        host.set_flag(HealthFlag::FailedOutlierCheck, false);
        self.ejected.fetch_sub(1, Relaxed);
        self.stats.local().ejections_active.dec();
        self.write(Happened::Back, cluster, host, server);
    }

    /// Lets a host back in that an active health check finds well (`successful_active_health_check_uneject_host`).
    /// Tells whether it was ejected.
    pub(in crate::upstream) fn readmit(&self, cluster: &Cluster, host: &Host, server: &ServerContext) -> bool {
        if !self.config.readmit_checked || !host.has_flag(HealthFlag::FailedOutlierCheck) {
            return false;
        }
        self.let_back(cluster, host, server);
        true
    }

    /// A host said that it is degraded: it is used where there is no better one. Whatever the share of ejected hosts.
    pub(super) fn degrade(&self, cluster: &Cluster, host: &Host, server: &ServerContext) {
        if host.is_removed() || !host.set_flag(HealthFlag::DegradedOutlierDetection, true) {
            return;
        }
        self.stats.local().ejections_detected_degradation.inc();
        let times = self.config.times(&server.runtime.known.outlier_detection);
        host.outlier().ejection().degraded.begin(&times);
        cluster.refresh_health(server);
        self.write(Happened::Degraded, cluster, host, server);
    }

    /// It counts as well again.
    pub(super) fn no_longer_degraded(&self, cluster: &Cluster, host: &Host, server: &ServerContext) {
        host.outlier().ejection().degraded.end();
        host.set_flag(HealthFlag::DegradedOutlierDetection, false);
        self.write(Happened::Back, cluster, host, server);
    }

    /// Discovery removed these hosts: who was ejected among them does not count any more.
    pub(in crate::upstream) fn removed(&self, hosts: &[Arc<Host>]) {
        let ejected = hosts
            .iter()
            .filter(|h| h.has_flag(HealthFlag::FailedOutlierCheck))
            .count() as u64;
        if ejected > 0 {
            self.ejected.fetch_sub(ejected, Relaxed);
            self.stats.local().ejections_active.sub(ejected);
        }
    }

    /// The average of the success rates that were compared last and what lay too far below it, percent; on this side or
    /// on the other. -1 where nothing was compared.
    pub(in crate::upstream) fn compared_with(&self, local: bool) -> (f64, f64) {
        let compared = self.compared(local);
        (compared.average, compared.ejection)
    }

    pub(super) fn compared(&self, local: bool) -> Threshold {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(local)]
    }
}

impl Drop for OutlierDetector {
    // The statistics outlive a cluster that is replaced by one of its name.
    fn drop(&mut self) {
        self.stats.local().ejections_active.sub(self.ejected.load(Relaxed));
    }
}
