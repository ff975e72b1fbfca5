//! Outlier detection: hosts that fail again and again are ejected for a while.
//!
//! Workers count what follows one another in the host's own counters; whoever reaches a limit tells control, which
//! alone decides, marks the host and publishes the cluster's hosts anew. A timer lets hosts back in.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use xds_protos::{envoy::config::cluster::v3::OutlierDetection as Proto, google::protobuf::UInt32Value};

use super::{Cluster, Host, host::HealthFlag};
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    runtime::Key,
    server::ServerContext,
    stats::{Scope, Stats},
    stats_block,
};

stats_block! {
    /// `cluster.<name>.outlier_detection.`
    pub struct OutlierStats {
        counter ejections_consecutive_5xx => "outlier_detection.ejections_consecutive_5xx", "Ejections for 5xx (deprecated)";
        counter ejections_detected_consecutive_5xx => "outlier_detection.ejections_detected_consecutive_5xx", "Hosts with too many 5xx";
        counter ejections_detected_consecutive_gateway_failure => "outlier_detection.ejections_detected_consecutive_gateway_failure", "Hosts with too many gateway failures";
        counter ejections_detected_consecutive_local_origin_failure => "outlier_detection.ejections_detected_consecutive_local_origin_failure", "Hosts with too many failures on this side";
        counter ejections_detected_failure_percentage => "outlier_detection.ejections_detected_failure_percentage", "Hosts with too high a share of failures";
        counter ejections_detected_local_origin_failure_percentage => "outlier_detection.ejections_detected_local_origin_failure_percentage", "Likewise, of failures on this side";
        counter ejections_detected_local_origin_success_rate => "outlier_detection.ejections_detected_local_origin_success_rate", "Hosts that fail more than others, on this side";
        counter ejections_detected_success_rate => "outlier_detection.ejections_detected_success_rate", "Hosts that fail more than others";
        counter ejections_enforced_consecutive_5xx => "outlier_detection.ejections_enforced_consecutive_5xx", "Ejected for 5xx";
        counter ejections_enforced_consecutive_gateway_failure => "outlier_detection.ejections_enforced_consecutive_gateway_failure", "Ejected for gateway failures";
        counter ejections_enforced_consecutive_local_origin_failure => "outlier_detection.ejections_enforced_consecutive_local_origin_failure", "Ejected for failures on this side";
        counter ejections_enforced_failure_percentage => "outlier_detection.ejections_enforced_failure_percentage", "Ejected for their share of failures";
        counter ejections_enforced_local_origin_failure_percentage => "outlier_detection.ejections_enforced_local_origin_failure_percentage", "Likewise, on this side";
        counter ejections_enforced_local_origin_success_rate => "outlier_detection.ejections_enforced_local_origin_success_rate", "Ejected because others fail less, on this side";
        counter ejections_enforced_success_rate => "outlier_detection.ejections_enforced_success_rate", "Ejected because others fail less";
        counter ejections_enforced_total => "outlier_detection.ejections_enforced_total", "Hosts ejected";
        counter ejections_overflow => "outlier_detection.ejections_overflow", "Ejections left out because of max_ejection_percent";
        counter ejections_success_rate => "outlier_detection.ejections_success_rate", "Ejections because others fail less (deprecated)";
        counter ejections_total => "outlier_detection.ejections_total", "Ejections (deprecated)";
        gauge ejections_active => "outlier_detection.ejections_active", "Hosts ejected now";
    }
}

/// What an attempt says of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostResult {
    /// It answered.
    Status(StatusCode),
    /// A connection was made; only [`OutlierDetector`]s that split look at it.
    Connected,
    /// It could not be reached, or reset the request.
    Failed,
    /// It took too long.
    TimedOut,
}

/// Why a host is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Consecutive5xx,
    GatewayFailure,
    LocalOrigin,
}

/// A limit of failures in a row, and how surely it ejects.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// 0: none.
    after: u32,
    /// Percent.
    enforcing: u32,
}

/// A cluster's detection, as configured.
pub struct OutlierDetector {
    consecutive_5xx: Limit,
    gateway: Limit,
    local: Limit,
    /// `split_external_local_origin_errors`
    split: bool,
    interval: Duration,
    base_ejection_time: Duration,
    max_ejection_time: Duration,
    max_jitter: Duration,
    max_ejection_percent: u32,
    always_eject_one: bool,
    /// `successful_active_health_check_uneject_host`
    readmit_checked: bool,
    stats: Stats<OutlierStats>,
}

/// What a host keeps for outlier detection.
#[derive(Debug, Default)]
pub struct HostOutlier {
    consecutive_5xx: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
struct Ejection {
    /// When it may come back.
    until: Option<Instant>,
    /// How many times the base time the next ejection lasts.
    backoff: u32,
}

impl HostOutlier {
    /// What was counted before an ejection does not count after it.
    fn reset(&self) {
        for counter in [&self.consecutive_5xx, &self.gateway, &self.local] {
            counter.store(0, Relaxed);
        }
    }
}

impl OutlierDetector {
    /// Builds `outlier_detection`.
    pub fn build(proto: Proto, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
                consecutive_gateway_failure, enforcing_consecutive_gateway_failure,
                split_external_local_origin_errors, consecutive_local_origin_failure,
                enforcing_consecutive_local_origin_failure, max_ejection_time, max_ejection_time_jitter,
                always_eject_one_host, successful_active_health_check_uneject_host
            }
            ignored {
                enforcing_success_rate: "hosts are not compared with one another",
                success_rate_minimum_hosts: "hosts are not compared with one another",
                success_rate_request_volume: "hosts are not compared with one another",
                success_rate_stdev_factor: "hosts are not compared with one another",
                enforcing_local_origin_success_rate: "hosts are not compared with one another",
                failure_percentage_threshold: "only failures in a row eject",
                enforcing_failure_percentage: "only failures in a row eject",
                enforcing_failure_percentage_local_origin: "only failures in a row eject",
                failure_percentage_minimum_hosts: "only failures in a row eject",
                failure_percentage_request_volume: "only failures in a row eject",
                detect_degraded_hosts: "hosts are not marked degraded by what they answer",
            }
            rejected { monitors: "outlier detection monitors" }
        });
        let number = |v: Option<UInt32Value>, default| v.map_or(default, |v| v.value);
        let base_ejection_time = base_ejection_time.or_duration(Duration::from_secs(30));
        Ok(Self {
            consecutive_5xx: Limit {
                after: number(consecutive_5xx, 5),
                enforcing: number(enforcing_consecutive_5xx, 100),
            },
            gateway: Limit {
                after: number(consecutive_gateway_failure, 5),
                enforcing: number(enforcing_consecutive_gateway_failure, 0),
            },
            local: Limit {
                after: number(consecutive_local_origin_failure, 5),
                enforcing: number(enforcing_consecutive_local_origin_failure, 100),
            },
            split: split_external_local_origin_errors,
            interval: interval.or_duration(Duration::from_secs(10)),
            base_ejection_time,
            max_ejection_time: max_ejection_time
                .or_duration(Duration::from_secs(300))
                .max(base_ejection_time),
            max_jitter: max_ejection_time_jitter.or_duration(Duration::ZERO),
            max_ejection_percent: number(max_ejection_percent, 10).min(100),
            always_eject_one: always_eject_one_host.is_some_and(|v| v.value),
            readmit_checked: successful_active_health_check_uneject_host.is_none_or(|v| v.value),
            stats: scope.block(),
        })
    }

    /// Counts what an attempt says of its host, on a worker. A limit that is reached goes to control.
    pub fn report(&self, cluster: &Arc<Cluster>, host: &Arc<Host>, result: HostResult, server: &Arc<ServerContext>) {
        let counters = &host.outlier;
        let keys = &server.runtime.known.outlier_detection;
        let code = match result {
            HostResult::Connected if self.split => return counters.local.store(0, Relaxed),
            HostResult::Connected => return,
            HostResult::Failed | HostResult::TimedOut if self.split => {
                if reaches(&counters.local, self.local, &keys.consecutive_local_origin_failure) {
                    tell(cluster, host, Cause::LocalOrigin, server);
                }
                return;
            }
            HostResult::Failed => 503,
            HostResult::TimedOut => 504,
            HostResult::Status(status) => status.as_u16(),
        };
        if code < 500 {
            counters.consecutive_5xx.store(0, Relaxed);
            counters.gateway.store(0, Relaxed);
            return;
        }
        if !matches!(code, 502..=504) {
            counters.gateway.store(0, Relaxed);
        } else if reaches(&counters.gateway, self.gateway, &keys.consecutive_gateway_failure) {
            tell(cluster, host, Cause::GatewayFailure, server);
        }
        if reaches(&counters.consecutive_5xx, self.consecutive_5xx, &keys.consecutive_5xx) {
            tell(cluster, host, Cause::Consecutive5xx, server);
        }
    }

    /// Ejects a host, on control.
    fn eject(&self, cluster: &Arc<Cluster>, host: &Arc<Host>, cause: Cause, server: &ServerContext) {
        if host.is_removed() || host.has_flag(HealthFlag::FailedOutlierCheck) {
            return;
        }
        let stats = self.stats.local();
        let keys = &server.runtime.known.outlier_detection;
        let (limit, enforcing) = match cause {
            Cause::Consecutive5xx => {
                stats.ejections_detected_consecutive_5xx.inc();
                stats.ejections_consecutive_5xx.inc();
                host.outlier.consecutive_5xx.store(0, Relaxed);
                (self.consecutive_5xx, &keys.enforcing_consecutive_5xx)
            }
            Cause::GatewayFailure => {
                stats.ejections_detected_consecutive_gateway_failure.inc();
                host.outlier.gateway.store(0, Relaxed);
                (self.gateway, &keys.enforcing_consecutive_gateway_failure)
            }
            Cause::LocalOrigin => {
                stats.ejections_detected_consecutive_local_origin_failure.inc();
                host.outlier.local.store(0, Relaxed);
                (self.local, &keys.enforcing_consecutive_local_origin_failure)
            }
        };
        let hosts = cluster.hosts.load();
        let all = hosts.hosts().count().max(1) as u64;
        let ejected = hosts
            .hosts()
            .filter(|h| h.has_flag(HealthFlag::FailedOutlierCheck))
            .count() as u64;
        // With it, not without it: in a small cluster the default share leaves room for nobody.
        let percent = keys.max_ejection_percent.integer(self.max_ejection_percent.into());
        let room = (ejected + 1) * 100 <= percent.min(100) * all;
        let the_one = self.always_eject_one && ejected == 0;
        if !room && !the_one {
            stats.ejections_overflow.inc();
            return;
        }
        if cause == Cause::Consecutive5xx {
            stats.ejections_total.inc();
        }
        if !enforcing.percent_feature(limit.enforcing.into(), fastrand::u64(..)) {
            return;
        }
        stats.ejections_enforced_total.inc();
        match cause {
            Cause::Consecutive5xx => stats.ejections_enforced_consecutive_5xx.inc(),
            Cause::GatewayFailure => stats.ejections_enforced_consecutive_gateway_failure.inc(),
            Cause::LocalOrigin => stats.ejections_enforced_consecutive_local_origin_failure.inc(),
        }
        {
            let mut ejection = host.outlier.ejection.lock().unwrap_or_else(PoisonError::into_inner);
            let time = |key: &Key, default: Duration| match key.integer(u64::MAX) {
                u64::MAX => default,
                milliseconds => Duration::from_millis(milliseconds),
            };
            let base = time(&keys.base_ejection_time_ms, self.base_ejection_time);
            let longest = time(&keys.max_ejection_time_ms, self.max_ejection_time);
            if base * ejection.backoff < longest + base {
                ejection.backoff += 1;
            }
            let jitter = self.max_jitter.mul_f64(fastrand::f64());
            let length = (base * ejection.backoff).min(longest) + jitter;
            ejection.until = Some(Instant::now() + length);
        }
        host.set_flag(HealthFlag::FailedOutlierCheck, true);
        cluster.host_failed(host, server);
        tracing::debug!(cluster = %cluster.info.name, host = %host.address, ?cause, "host ejected");
        cluster.refresh_health(server);
        stats.ejections_active.set(ejected + 1);
    }

    /// Lets a host back in that an active health check finds well (`successful_active_health_check_uneject_host`), on
    /// control. Tells whether it was ejected.
    pub(super) fn readmit(&self, cluster: &Cluster, host: &Host) -> bool {
        if !self.readmit_checked || !host.set_flag(HealthFlag::FailedOutlierCheck, false) {
            return false;
        }
        host.outlier
            .ejection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .until = None;
        host.outlier.reset();
        let ejected = cluster.hosts.load();
        let ejected = ejected.hosts().filter(|h| h.has_flag(HealthFlag::FailedOutlierCheck));
        self.stats.local().ejections_active.set(ejected.count() as u64);
        true
    }

    /// Lets hosts back in whose time is over, on control.
    fn sweep(&self, cluster: &Cluster, server: &ServerContext) {
        let now = Instant::now();
        let (mut changed, mut ejected) = (false, 0);
        for host in cluster.hosts.load().hosts() {
            let mut ejection = host.outlier.ejection.lock().unwrap_or_else(PoisonError::into_inner);
            match ejection.until {
                Some(until) if until <= now => {
                    ejection.until = None;
                    drop(ejection);
                    host.outlier.reset();
                    changed |= host.set_flag(HealthFlag::FailedOutlierCheck, false);
                }
                Some(_) => ejected += 1,
                // Who behaves is forgiven step by step.
                None => ejection.backoff = ejection.backoff.saturating_sub(1),
            }
        }
        if changed {
            cluster.refresh_health(server);
        }
        self.stats.local().ejections_active.set(ejected);
    }
}

/// Whether this failure is the one that reaches the limit.
fn reaches(counter: &AtomicU32, limit: Limit, key: &Key) -> bool {
    u64::from(counter.fetch_add(1, Relaxed)) + 1 == key.integer(limit.after.into())
}

fn tell(cluster: &Arc<Cluster>, host: &Arc<Host>, cause: Cause, server: &Arc<ServerContext>) {
    let (cluster, host, context) = (cluster.clone(), host.clone(), server.clone());
    server.mailboxes.run_on_control(move |_| {
        if let Some(detector) = &cluster.info.outlier {
            detector.eject(&cluster, &host, cause, &context);
        }
    });
}

/// Starts the timer that lets hosts back in; it ends with the cluster.
pub(super) fn start(cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
    let Some(interval) = cluster.info.outlier.as_ref().map(|d| d.interval) else {
        return;
    };
    let (cluster, context): (Weak<Cluster>, _) = (Arc::downgrade(cluster), server.clone());
    server.mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(cluster) = cluster.upgrade() else { return };
                if let Some(detector) = &cluster.info.outlier {
                    detector.sweep(&cluster, &context);
                }
            }
        });
    });
}

#[cfg(test)]
mod tests;
