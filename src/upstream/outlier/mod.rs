//! Outlier detection: hosts that fail again and again are ejected for a while.
//!
//! ```text
//! worker:  report -> counters of the host -> a limit is reached -> control
//! control: eject  a host that failed in a row          sweep: the end of an interval: rates, who comes back
//!          degrade a host that says it is degraded      events: the log of ejections
//! ```
//!
//! Workers count what follows one another in the host's own counters; whoever reaches a limit tells control, which
//! alone decides, marks the host and publishes the cluster's hosts anew. A timer compares the hosts' rates of success
//! and lets hosts back in.

mod cause;
mod config;
mod eject;
mod events;
mod host;
mod penalty;
mod rates;
mod stats;
mod sweep;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use http::StatusCode;

pub(super) use self::sweep::start;
pub use self::{cause::Cause, host::HostOutlier};
use self::{
    config::{Config, Limit},
    rates::Threshold,
    stats::OutlierStats,
};
use super::{Cluster, Host, host::HealthFlag};
use crate::{runtime::Key, server::ServerContext, stats::Stats};

/// What an attempt says of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostResult {
    /// It answered.
    Status(StatusCode),
    /// It answered, and said that it would rather not be used (`x-envoy-degraded`).
    Degraded(StatusCode),
    /// A connection was made, over which more will be said; only those that split look at it.
    Connected,
    /// A connection was made, which is all that will be known of it: the TCP proxy's.
    Served,
    /// It could not be reached, or reset the request.
    Failed,
    /// It took too long, and the client is answered this.
    TimedOut(StatusCode),
}

/// A cluster's detection.
pub struct OutlierDetector {
    config: Config,
    stats: Stats<OutlierStats>,
    /// Hosts ejected now.
    ejected: AtomicU64,
    /// What the hosts were compared with last: of their answers, and of failures on this side.
    compared: Mutex<[Threshold; 2]>,
}

impl OutlierDetector {
    /// Counts what an attempt says of its host, on a worker. A limit that is reached goes to control.
    pub fn report(&self, cluster: &Arc<Cluster>, host: &Arc<Host>, result: HostResult, server: &Arc<ServerContext>) {
        let split = self.config.split;
        match result {
            HostResult::Status(code) => self.count(cluster, host, code.as_u16(), server),
            HostResult::Degraded(code) => {
                self.count(cluster, host, code.as_u16(), server);
                if self.config.detect_degraded && !code.is_server_error() {
                    self.say_degraded(cluster, host, server);
                }
            }
            HostResult::Connected | HostResult::Served if split => {
                let counters = host.outlier();
                counters.rate(true).count(true);
                counters.local.store(0, Relaxed);
            }
            HostResult::Connected => {}
            HostResult::Served => self.count(cluster, host, 200, server),
            HostResult::Failed | HostResult::TimedOut(_) if split => {
                let counters = host.outlier();
                counters.rate(true).count(false);
                let key = &server.runtime.known.outlier_detection.consecutive_local_origin_failure;
                if reaches(&counters.local, self.config.local, key) {
                    tell(cluster, host, Cause::LocalOrigin, server);
                }
            }
            HostResult::Failed => self.count(cluster, host, 503, server),
            HostResult::TimedOut(code) => self.count(cluster, host, code.as_u16(), server),
        }
    }

    /// Counts a status, real or stood in for.
    fn count(&self, cluster: &Arc<Cluster>, host: &Arc<Host>, code: u16, server: &Arc<ServerContext>) {
        let counters = host.outlier();
        let keys = &server.runtime.known.outlier_detection;
        counters.rate(false).count(code < 500);
        if code < 500 {
            counters.consecutive_5xx.store(0, Relaxed);
            counters.gateway.store(0, Relaxed);
            return;
        }
        if !matches!(code, 502..=504) {
            counters.gateway.store(0, Relaxed);
        } else if reaches(
            &counters.gateway,
            self.config.gateway,
            &keys.consecutive_gateway_failure,
        ) {
            tell(cluster, host, Cause::GatewayFailure, server);
        }
        if reaches(
            &counters.consecutive_5xx,
            self.config.consecutive_5xx,
            &keys.consecutive_5xx,
        ) {
            tell(cluster, host, Cause::Consecutive5xx, server);
        }
    }

    fn say_degraded(&self, cluster: &Arc<Cluster>, host: &Arc<Host>, server: &Arc<ServerContext>) {
        if host.has_flag(HealthFlag::DegradedOutlierDetection) {
            return;
        }
        let (cluster, host, context) = (cluster.clone(), host.clone(), server.clone());
        server.mailboxes.run_on_control(move |_| {
            if let Some(detector) = &cluster.info.outlier {
                detector.degrade(&cluster, &host, &context);
            }
        });
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
            detector.eject_after_failures(&cluster, &host, cause, &context);
        }
    });
}

#[cfg(test)]
mod tests;
