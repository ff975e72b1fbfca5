//! Active health checking (`health_checks`): each host is asked again and again whether it is well.
//!
//! ```text
//! config: HealthCheck -> HealthCheckConfig        session: when to check, thresholds, flags of one host
//! http, tcp, grpc: one check over client's connection       events: what is written when a host changes
//! redis, thrift: likewise, over a raw one
//! ```
//!
//! Everything runs on the control thread, one task for each checked host, over the cluster's own transport socket.
//! Workers see the outcome as flags of the [`Host`] and as the next snapshot of the cluster's hosts; a cluster without
//! checks has none of this. A cluster is warm when every host it starts with was checked once.

mod client;
mod config;
mod events;
mod grpc;
mod http;
mod payload;
mod raw;
mod redis;
mod session;
mod tcp;
mod thrift;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

pub use self::config::HealthCheckConfig;
use self::{config::Kind, session::Session};
use super::{Cluster, HealthFlag, Host};
use crate::{
    server::ServerContext,
    stats::{Scope, Stats},
    stats_block,
};

stats_block! {
    /// `cluster.<name>.health_check.`
    pub struct HealthCheckStats {
        counter attempt => "health_check.attempt", "Checks begun";
        counter failure => "health_check.failure", "Checks that failed, and hosts that asked not to be used";
        counter network_failure => "health_check.network_failure", "Checks that failed on the way";
        counter passive_failure => "health_check.passive_failure", "Hosts that asked not to be used";
        counter success => "health_check.success", "Checks that succeeded";
        counter verify_cluster => "health_check.verify_cluster", "Checks that looked at the name of the service";
        gauge degraded => "health_check.degraded", "Hosts that say they are degraded";
        gauge healthy => "health_check.healthy", "Hosts that did not fail";
    }
}

/// The health checks of one cluster.
pub struct HealthChecks {
    config: HealthCheckConfig,
    stats: Stats<HealthCheckStats>,
    sessions: Mutex<Sessions>,
    /// Hosts that were not checked yet.
    unchecked: watch::Sender<usize>,
}

#[derive(Default)]
struct Sessions {
    /// Checks begin when all else that the cluster waits for is there: its secrets above all.
    started: bool,
    stopped: bool,
    /// By address of the host in memory, which the session keeps alive.
    by_host: HashMap<usize, Arc<Session>>,
}

impl HealthChecks {
    /// Checks that have not begun; statistics stand below the cluster's `scope`.
    pub fn new(mut config: HealthCheckConfig, scope: &Scope) -> Self {
        if let Kind::Redis(redis) = &mut config.kind {
            redis.count_into(scope);
        }
        Self {
            config,
            stats: scope.block(),
            sessions: Mutex::default(),
            unchecked: watch::Sender::new(0),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a host is checked at all.
    pub fn checks(&self, host: &Host) -> bool {
        !host.attributes().health_check_disabled
    }

    /// What a new host is until it was checked: not to be used, and if `warming` not to be counted either.
    pub fn mark_new(&self, host: &Host, warming: bool) {
        if self.checks(host) {
            host.set_flag(HealthFlag::FailedActiveHc, true);
            host.set_flag(HealthFlag::PendingActiveHc, warming);
        }
    }

    /// Begins to check the hosts of a cluster whose endpoints and secrets are known. The number of hosts that were
    /// never checked is what the cluster still waits for.
    pub fn start(&self, cluster: &Arc<Cluster>, server: &Arc<ServerContext>) -> watch::Receiver<usize> {
        self.sessions().started = true;
        let hosts: Vec<_> = cluster.hosts.load().hosts().cloned().collect();
        self.update(&hosts, &[], cluster, server);
        self.unchecked.subscribe()
    }

    /// Begins to check the hosts that came and ends it for those that went.
    pub fn update(
        &self,
        added: &[Arc<Host>],
        removed: &[Arc<Host>],
        cluster: &Arc<Cluster>,
        server: &Arc<ServerContext>,
    ) {
        let mut sessions = self.sessions();
        if !sessions.started || sessions.stopped {
            return;
        }
        for host in removed {
            if let Some(session) = sessions.by_host.remove(&key(host)) {
                session.stop(self);
            }
        }
        for host in added {
            if !self.checks(host) || sessions.by_host.contains_key(&key(host)) {
                continue;
            }
            let session = Session::new(host.clone(), self);
            sessions.by_host.insert(key(host), session.clone());
            self.unchecked.send_modify(|n| *n += 1);
            session.start(cluster, server);
        }
    }

    /// The cluster is gone or replaced.
    pub fn stop(&self) {
        let mut sessions = self.sessions();
        sessions.stopped = true;
        for (_, session) in sessions.by_host.drain() {
            session.stop(self);
        }
    }

    /// A host said with `x-envoy-immediate-health-check-fail` that it is not to be used: on control.
    fn fail(&self, host: &Arc<Host>, cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
        let session = self.sessions().by_host.get(&key(host)).cloned();
        if let Some(session) = session {
            session.fail_passively(self, cluster, server);
        }
    }
}

fn key(host: &Arc<Host>) -> usize {
    Arc::as_ptr(host).addr()
}

/// A response to a request said that its host is not to be used any more (`x-envoy-immediate-health-check-fail`). Has
/// an effect where hosts are checked: the next check that succeeds brings the host back.
pub fn fail_immediately(cluster: &Arc<Cluster>, host: &Arc<Host>, server: &Arc<ServerContext>) {
    if cluster.checks.is_none() {
        return;
    }
    host.set_flag(HealthFlag::ExcludedViaImmediateHcFail, true);
    let (cluster, host, context) = (cluster.clone(), host.clone(), server.clone());
    server.mailboxes.run_on_control(move |_| {
        if let Some(checks) = &cluster.checks {
            checks.fail(&host, &cluster, &context);
        }
    });
}

/// Ends the checks of a cluster when it is dropped: what the manager holds for as long as the cluster is configured.
pub struct Running(pub Arc<Cluster>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(checks) = &self.0.checks {
            checks.stop();
        }
    }
}

#[cfg(test)]
mod tests;
