//! Outlier detection: hosts that fail again and again are ejected for a while.
//!
//! Workers count what follows one another in the host's own counters; whoever reaches a limit tells control, which
//! alone decides, marks the host and publishes the cluster's hosts anew. A timer compares the hosts' rates of success
//! and lets hosts back in.

mod events;
mod rates;
mod stats;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;
use xds_protos::envoy::config::cluster::v3::OutlierDetection as Proto;

use self::{
    events::Happened,
    rates::{Comparison, Rate, Threshold, number},
    stats::OutlierStats,
};
use super::{Cluster, Host, HostSets, host::HealthFlag};
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    runtime::Key,
    server::ServerContext,
    stats::{CounterCell, Scope, Stats},
};

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
pub enum Cause {
    Consecutive5xx,
    GatewayFailure,
    LocalOrigin,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

impl Cause {
    /// Whether it is about failures on this side.
    fn is_local(self) -> bool {
        matches!(
            self,
            Self::LocalOrigin | Self::LocalOriginSuccessRate | Self::LocalOriginFailurePercentage
        )
    }
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
    comparison: Comparison,
    /// Percent: for success rates and failure percentages, each of the other side and of this one.
    enforcing_rates: [u32; 4],
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
    external_rate: Rate,
    local_rate: Rate,
    ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
struct Ejection {
    /// When it may come back.
    until: Option<Instant>,
    /// When it was ejected last.
    ejected: Option<Instant>,
    /// When it came back last.
    back: Option<Instant>,
    /// How often it was ejected.
    count: u32,
    /// How many times the base time the next ejection lasts.
    backoff: u32,
}

impl HostOutlier {
    /// Success in percent in the last interval, on this side or on the other; -1 if nothing can be said.
    pub fn success_rate(&self, local: bool) -> f64 {
        self.rate(local).last()
    }

    fn rate(&self, local: bool) -> &Rate {
        if local { &self.local_rate } else { &self.external_rate }
    }

    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
                always_eject_one_host, successful_active_health_check_uneject_host, enforcing_success_rate,
                success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
                enforcing_local_origin_success_rate, failure_percentage_threshold, enforcing_failure_percentage,
                enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts,
                failure_percentage_request_volume
            }
            ignored {
                detect_degraded_hosts: "hosts are not marked degraded by what they answer",
            }
            rejected { monitors: "outlier detection monitors" }
        });
        let base_ejection_time = base_ejection_time.or_duration(Duration::from_secs(30));
        let default_max = Duration::from_secs(300).max(base_ejection_time);
        let max_ejection_time = max_ejection_time.or_duration(default_max);
        if max_ejection_time < base_ejection_time {
            return Err(cx.error("outlier detector's max_ejection_time cannot be smaller than base_ejection_time"));
        }
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
            max_ejection_time,
            comparison: Comparison {
                minimum_hosts: number(success_rate_minimum_hosts, 5),
                request_volume: number(success_rate_request_volume, 100),
                stdev_factor: number(success_rate_stdev_factor, 1900),
                failure_threshold: number(failure_percentage_threshold, 85),
                failure_minimum_hosts: number(failure_percentage_minimum_hosts, 5),
                failure_request_volume: number(failure_percentage_request_volume, 50),
            },
            enforcing_rates: [
                number(enforcing_success_rate, 100),
                number(enforcing_local_origin_success_rate, 100),
                number(enforcing_failure_percentage, 0),
                number(enforcing_failure_percentage_local_origin, 0),
            ],
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
            HostResult::Connected if self.split => {
                counters.local_rate.count(true);
                return counters.local.store(0, Relaxed);
            }
            HostResult::Connected => return,
            HostResult::Failed | HostResult::TimedOut if self.split => {
                counters.local_rate.count(false);
                if reaches(&counters.local, self.local, &keys.consecutive_local_origin_failure) {
                    tell(cluster, host, Cause::LocalOrigin, server);
                }
                return;
            }
            HostResult::Failed => 503,
            HostResult::TimedOut => 504,
            HostResult::Status(status) => status.as_u16(),
        };
        counters.external_rate.count(code < 500);
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

    /// What to count and how surely to eject, by cause.
    fn rule(&self, cause: Cause, server: &ServerContext) -> (Counter, Counter, bool) {
        let keys = &server.runtime.known.outlier_detection;
        let [success, local_success, failure, local_failure] = self.enforcing_rates;
        let (detected, enforced, percent, key): (Counter, Counter, u32, &Key) = match cause {
            Cause::Consecutive5xx => (
                |s| &s.ejections_detected_consecutive_5xx,
                |s| &s.ejections_enforced_consecutive_5xx,
                self.consecutive_5xx.enforcing,
                &keys.enforcing_consecutive_5xx,
            ),
            Cause::GatewayFailure => (
                |s| &s.ejections_detected_consecutive_gateway_failure,
                |s| &s.ejections_enforced_consecutive_gateway_failure,
                self.gateway.enforcing,
                &keys.enforcing_consecutive_gateway_failure,
            ),
            Cause::LocalOrigin => (
                |s| &s.ejections_detected_consecutive_local_origin_failure,
                |s| &s.ejections_enforced_consecutive_local_origin_failure,
                self.local.enforcing,
                &keys.enforcing_consecutive_local_origin_failure,
            ),
            Cause::SuccessRate => (
                |s| &s.ejections_detected_success_rate,
                |s| &s.ejections_enforced_success_rate,
                success,
                &keys.enforcing_success_rate,
            ),
            Cause::LocalOriginSuccessRate => (
                |s| &s.ejections_detected_local_origin_success_rate,
                |s| &s.ejections_enforced_local_origin_success_rate,
                local_success,
                &keys.enforcing_local_origin_success_rate,
            ),
            Cause::FailurePercentage => (
                |s| &s.ejections_detected_failure_percentage,
                |s| &s.ejections_enforced_failure_percentage,
                failure,
                &keys.enforcing_failure_percentage,
            ),
            Cause::LocalOriginFailurePercentage => (
                |s| &s.ejections_detected_local_origin_failure_percentage,
                |s| &s.ejections_enforced_local_origin_failure_percentage,
                local_failure,
                &keys.enforcing_failure_percentage_local_origin,
            ),
        };
        (
            detected,
            enforced,
            key.percent_feature(percent.into(), fastrand::u64(..)),
        )
    }

    /// Ejects a host after failures in a row, on control.
    fn eject_after_failures(&self, cluster: &Arc<Cluster>, host: &Arc<Host>, cause: Cause, server: &ServerContext) {
        if host.is_removed() || host.has_flag(HealthFlag::FailedOutlierCheck) {
            return;
        }
        let counter = match cause {
            Cause::GatewayFailure => &host.outlier.gateway,
            Cause::LocalOrigin => &host.outlier.local,
            _ => {
                self.stats.local().ejections_consecutive_5xx.inc();
                &host.outlier.consecutive_5xx
            }
        };
        counter.store(0, Relaxed);
        self.eject(cluster, host, cause, Threshold::default(), server);
    }

    /// Ejects a host as far as the others leave room for it, on control.
    fn eject(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        cause: Cause,
        threshold: Threshold,
        server: &ServerContext,
    ) {
        let stats = self.stats.local();
        let keys = &server.runtime.known.outlier_detection;
        let (detected, enforced_counter, enforced) = self.rule(cause, server);
        detected(stats).inc();
        let hosts = cluster.hosts.load();
        let all = hosts.hosts().count().max(1) as u64;
        let ejected = ejected(&hosts);
        // With it, not without it: in a small cluster the default share leaves room for nobody.
        let percent = keys.max_ejection_percent.integer(self.max_ejection_percent.into());
        let room = (ejected + 1) * 100 <= percent.min(100) * all;
        let the_one = self.always_eject_one && ejected == 0;
        if !room && !the_one {
            stats.ejections_overflow.inc();
            return;
        }
        if matches!(cause, Cause::Consecutive5xx | Cause::SuccessRate) {
            stats.ejections_total.inc();
        }
        if enforced {
            stats.ejections_enforced_total.inc();
            enforced_counter(stats).inc();
            self.begin_ejection(&mut host.outlier.ejection(), server);
            host.set_flag(HealthFlag::FailedOutlierCheck, true);
            cluster.host_failed(host, server);
            tracing::debug!(cluster = %cluster.info.name, host = %host.address, ?cause, "host ejected");
            cluster.refresh_health(server);
            stats.ejections_active.set(ejected + 1);
        }
        if let Some(file) = server.clusters.ejection_log() {
            let (count, since) = {
                let ejection = host.outlier.ejection();
                (ejection.count, ejection.back.map(|t| t.elapsed()))
            };
            let happened = Happened::Ejected {
                cause,
                enforced,
                threshold,
            };
            events::write(file, happened, &cluster.info.name, host, count, since);
        }
    }

    fn begin_ejection(&self, ejection: &mut Ejection, server: &ServerContext) {
        let keys = &server.runtime.known.outlier_detection;
        let time = |key: &Key, own: Duration| Duration::from_millis(key.integer(millis(own)));
        let base = time(&keys.base_ejection_time_ms, self.base_ejection_time);
        let longest = time(&keys.max_ejection_time_ms, self.max_ejection_time);
        if base * ejection.backoff < longest + base {
            ejection.backoff += 1;
        }
        let jitter = time(&keys.max_ejection_time_jitter_ms, self.max_jitter).mul_f64(fastrand::f64());
        let now = Instant::now();
        ejection.count += 1;
        ejection.ejected = Some(now);
        ejection.until = Some(now + (base * ejection.backoff).min(longest) + jitter);
    }

    /// Lets a host back in: its flag is cleared, its counts do not count any more.
    fn let_back(&self, cluster: &Cluster, host: &Host, server: &ServerContext) {
        let (count, since) = {
            let mut ejection = host.outlier.ejection();
            ejection.until = None;
            ejection.back = Some(Instant::now());
            (ejection.count, ejection.ejected.map(|t| t.elapsed()))
        };
        host.outlier.reset();
        host.set_flag(HealthFlag::FailedOutlierCheck, false);
        if let Some(file) = server.clusters.ejection_log() {
            events::write(file, Happened::Back, &cluster.info.name, host, count, since);
        }
    }

    /// Lets a host back in that an active health check finds well (`successful_active_health_check_uneject_host`), on
    /// control. Tells whether it was ejected.
    pub(super) fn readmit(&self, cluster: &Cluster, host: &Host, server: &ServerContext) -> bool {
        if !self.readmit_checked || !host.has_flag(HealthFlag::FailedOutlierCheck) {
            return false;
        }
        self.let_back(cluster, host, server);
        self.stats.local().ejections_active.set(ejected(&cluster.hosts.load()));
        true
    }

    /// The end of an interval, on control: hosts whose time is over come back, hosts are compared, who behaves is
    /// forgiven step by step.
    fn sweep(&self, cluster: &Arc<Cluster>, server: &ServerContext) {
        let now = Instant::now();
        let hosts: Vec<_> = cluster.hosts.load().hosts().cloned().collect();
        let mut changed = false;
        for host in &hosts {
            let over = host.outlier.ejection().until.is_some_and(|until| until <= now);
            if over && host.has_flag(HealthFlag::FailedOutlierCheck) {
                self.let_back(cluster, host, server);
                changed = true;
            }
        }
        if changed {
            cluster.refresh_health(server);
            self.stats.local().ejections_active.set(ejected(&cluster.hosts.load()));
        }
        for local in [false, true] {
            let keys = &server.runtime.known.outlier_detection;
            let (bad, threshold) = self.comparison.finish(&hosts, local, keys);
            for (host, cause) in bad {
                if matches!(cause, Cause::SuccessRate | Cause::LocalOriginSuccessRate) {
                    self.stats.local().ejections_success_rate.inc();
                }
                if !host.has_flag(HealthFlag::FailedOutlierCheck) {
                    self.eject(cluster, &host, cause, threshold, server);
                }
            }
        }
        for host in &hosts {
            let mut ejection = host.outlier.ejection();
            let since = ejection.back.map(|back| now.saturating_duration_since(back));
            if since.is_some_and(|s| s >= self.interval(server)) && ejection.until.is_none() {
                ejection.backoff = ejection.backoff.saturating_sub(1);
            }
        }
    }

    fn interval(&self, server: &ServerContext) -> Duration {
        let key = &server.runtime.known.outlier_detection.interval_ms;
        Duration::from_millis(key.integer(millis(self.interval)).max(1))
    }
}

/// One of the counters.
type Counter = fn(&OutlierStats) -> &CounterCell;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How many hosts are ejected.
fn ejected(sets: &HostSets) -> u64 {
    sets.hosts()
        .filter(|h| h.has_flag(HealthFlag::FailedOutlierCheck))
        .count() as u64
}

/// Whether this failure is the one that reaches the limit.
fn reaches(counter: &AtomicU32, limit: Limit, key: &Key) -> bool {
    u64::from(counter.fetch_add(1, Relaxed)) + 1 == key.integer(limit.after.into())
}

fn tell(cluster: &Arc<Cluster>, host: &Arc<Host>, cause: Cause, server: &Arc<ServerContext>) {
    let (cluster, host, context) = (cluster.clone(), host.clone(), server.clone());
    server.mailboxes.run_on_control(move |_| {
        if let Some(detector) = &cluster.info.outlier {
            detector.eject_after_failures(&cluster, &host, cause, &context);
        }
    });
}

/// Starts the timer that lets hosts back in; it ends with the cluster.
pub(super) fn start(cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
    if cluster.info.outlier.is_none() {
        return;
    }
    let (cluster, context): (Weak<Cluster>, _) = (Arc::downgrade(cluster), server.clone());
    server.mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            loop {
                let interval = cluster
                    .upgrade()
                    .and_then(|c| Some(c.info.outlier.as_ref()?.interval(&context)));
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

#[cfg(test)]
mod tests;
