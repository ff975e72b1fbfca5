//! The checks of one host: when, what their results add up to, and who is told.

use std::{
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::http::Version;
use tokio::task::AbortHandle;
use xds_protos::envoy::data::core::v3::HealthCheckFailureType::{self, Network, NetworkTimeout, Passive};

use super::{
    HealthChecks,
    client::{Connection, Target},
    config::Kind,
    events::{Event, Failure},
    raw::RawConnection,
};
use crate::{
    http::{ConnectionInfo, StreamInfo},
    server::ServerContext,
    upstream::{Cluster, HealthFlag, Host},
};

/// What one check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The host is well; with `degraded` it would rather not be used.
    Healthy { degraded: bool },
    /// It is not.
    Failed(Failure),
}

impl Verdict {
    /// A failure without an HTTP status.
    pub fn failed(kind: HealthCheckFailureType) -> Self {
        Self::Failed(Failure {
            kind,
            retriable: false,
            status: 0,
        })
    }
}

/// What a result did to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transition {
    /// Nothing.
    Unchanged,
    /// Nothing yet: the threshold is not reached.
    Pending,
    /// It is balanced otherwise from now on.
    Changed,
}

/// The checks of one host. The task ends with the session.
pub struct Session {
    host: Arc<Host>,
    state: Mutex<State>,
}

struct State {
    /// No check has come to its end.
    first: bool,
    stopped: bool,
    /// Successes in a row while it is unhealthy.
    healthy: u32,
    /// Failures in a row while it is healthy.
    unhealthy: u32,
    task: Option<AbortHandle>,
}

impl Session {
    /// A session that does nothing yet.
    pub fn new(host: Arc<Host>, checks: &HealthChecks) -> Arc<Self> {
        let stats = checks.stats.local();
        if !host.has_flag(HealthFlag::FailedActiveHc) {
            stats.healthy.inc();
        }
        if host.has_flag(HealthFlag::DegradedActiveHc) {
            stats.degraded.inc();
        }
        let state = State {
            first: true,
            stopped: false,
            healthy: 0,
            unhealthy: 0,
            task: None,
        };
        Arc::new(Self {
            host,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to check, on control.
    pub fn start(self: &Arc<Self>, cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
        let (session, cluster, context) = (self.clone(), Arc::downgrade(cluster), server.clone());
        server.mailboxes.run_on_control(move |_| {
            let mut state = session.state();
            if state.stopped {
                return;
            }
            let checking = session.clone();
            let task = tokio::task::spawn_local(async move {
                let Some(cluster) = cluster.upgrade() else { return };
                checking.run(&cluster, &context).await;
            });
            state.task = Some(task.abort_handle());
        });
    }

    /// Ends it: the host is gone.
    pub fn stop(&self, checks: &HealthChecks) {
        let mut state = self.state();
        if std::mem::replace(&mut state.stopped, true) {
            return;
        }
        if let Some(task) = state.task.take() {
            task.abort();
        }
        let stats = checks.stats.local();
        if !self.host.has_flag(HealthFlag::FailedActiveHc) {
            stats.healthy.dec();
        }
        if self.host.has_flag(HealthFlag::DegradedActiveHc) {
            stats.degraded.dec();
        }
        // Nobody shall wait for a check that never comes.
        if std::mem::replace(&mut state.first, false) {
            checks.unchecked.send_modify(|n| *n = n.saturating_sub(1));
        }
    }

    async fn run(&self, cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
        let Some(checks) = &cluster.checks else { return };
        let config = &checks.config;
        let target = Target::new(cluster.info.clone(), self.host.clone(), config);
        let (mut http, mut raw) = (None::<Connection>, RawConnection::default());
        let jitter = config.intervals.initial();
        if !jitter.is_zero() {
            tokio::time::sleep(jitter).await;
        }
        loop {
            checks.stats.local().attempt.inc();
            let check = async {
                match &config.kind {
                    Kind::Http(check) => check.run(&target, config, checks.stats.local(), &mut http).await,
                    Kind::Tcp(check) => check.run(&target, config, &mut raw).await,
                    Kind::Grpc(check) => check.run(&target, config, &mut http).await,
                    Kind::Redis(check) => check.run(&target, config, &mut raw).await,
                    Kind::Thrift(check) => check.run(&target, config, &mut raw).await,
                }
            };
            let verdict = match tokio::time::timeout(config.timeout, check).await {
                Ok(verdict) => verdict,
                Err(_) => {
                    (http, raw) = (None, RawConnection::default());
                    Verdict::failed(NetworkTimeout)
                }
            };
            let mut healthy = matches!(verdict, Verdict::Healthy { .. });
            let mut transition = self.record(verdict, checks, cluster, server);
            loop {
                let traffic = has_traffic(cluster);
                let pause = config
                    .intervals
                    .next(healthy, transition == Transition::Pending, traffic);
                tokio::select! {
                    () = tokio::time::sleep(pause) => break,
                    () = raw.closed() => {
                        healthy = false;
                        transition = self.record(Verdict::failed(Network), checks, cluster, server);
                    }
                }
            }
        }
    }

    /// A response to a request asked for the host not to be used.
    pub fn fail_passively(&self, checks: &HealthChecks, cluster: &Arc<Cluster>, server: &Arc<ServerContext>) {
        if !self.state().stopped {
            self.record(Verdict::failed(Passive), checks, cluster, server);
        }
    }

    fn record(
        &self,
        verdict: Verdict,
        checks: &HealthChecks,
        cluster: &Arc<Cluster>,
        server: &Arc<ServerContext>,
    ) -> Transition {
        let mut state = self.state();
        let mut transition = match verdict {
            Verdict::Healthy { degraded } => self.succeeded(&mut state, degraded, checks, cluster),
            Verdict::Failed(failure) => self.failed(&mut state, failure, checks, cluster),
        };
        let first = std::mem::replace(&mut state.first, false);
        drop(state);
        if matches!(verdict, Verdict::Healthy { .. })
            && !self.host.has_flag(HealthFlag::FailedActiveHc)
            && let Some(outlier) = &cluster.info.outlier
            && outlier.readmit(cluster, &self.host, server)
        {
            transition = Transition::Changed;
        }
        if transition == Transition::Changed {
            let failed = self.host.has_flag(HealthFlag::FailedActiveHc);
            if failed {
                cluster.host_failed(&self.host, server);
            }
            if failed && self.host.has_flag(HealthFlag::PendingDynamicRemoval) {
                cluster.remove_host(&self.host, server);
            } else {
                cluster.refresh_health_soon(server);
            }
        }
        if first {
            checks.unchecked.send_modify(|n| *n = n.saturating_sub(1));
        }
        transition
    }

    fn succeeded(&self, state: &mut State, degraded: bool, checks: &HealthChecks, cluster: &Cluster) -> Transition {
        let (host, stats) = (&self.host, checks.stats.local());
        let mut transition = Transition::Unchanged;
        state.unhealthy = 0;
        if host.has_flag(HealthFlag::FailedActiveHc) {
            state.healthy = state.healthy.saturating_add(1);
            // The first result is believed at once, so that a start takes no longer than it must.
            if state.first || state.healthy == checks.config.healthy_threshold {
                state.healthy = 0;
                host.set_flag(HealthFlag::ActiveHcTimeout, false);
                host.set_flag(HealthFlag::ExcludedViaImmediateHcFail, false);
                host.set_flag(HealthFlag::FailedActiveHc, false);
                host.well_from_now();
                stats.healthy.inc();
                transition = Transition::Changed;
                let first_check = state.first;
                self.write(Event::Added { first_check }, checks, cluster);
            } else {
                transition = Transition::Pending;
            }
        }
        if transition != Transition::Changed && checks.config.log_successes {
            self.write(Event::Succeeded, checks, cluster);
        }
        transition = self.no_longer_pending(transition);
        if host.set_flag(HealthFlag::DegradedActiveHc, degraded) {
            if degraded {
                stats.degraded.inc();
                self.write(Event::Degraded, checks, cluster);
            } else {
                stats.degraded.dec();
                self.write(Event::NoLongerDegraded, checks, cluster);
            }
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        stats.success.inc();
        transition
    }

    fn failed(&self, state: &mut State, failure: Failure, checks: &HealthChecks, cluster: &Cluster) -> Transition {
        let (host, stats) = (&self.host, checks.stats.local());
        let on_the_way = matches!(failure.kind, Network | NetworkTimeout);
        let mut transition = Transition::Unchanged;
        state.healthy = 0;
        if !host.has_flag(HealthFlag::FailedActiveHc) {
            // A host that says itself that it is not well needs no second asking.
            let at_once = !on_the_way && !failure.retriable;
            if !at_once {
                state.unhealthy = state.unhealthy.saturating_add(1);
            }
            if at_once || state.unhealthy == checks.config.unhealthy_threshold {
                host.set_flag(HealthFlag::FailedActiveHc, true);
                stats.healthy.dec();
                transition = Transition::Changed;
                self.write(Event::Ejected(failure), checks, cluster);
            } else {
                transition = Transition::Pending;
            }
        }
        let timed_out = failure.kind == NetworkTimeout && host.has_flag(HealthFlag::FailedActiveHc);
        host.set_flag(HealthFlag::ActiveHcTimeout, timed_out);
        transition = self.no_longer_pending(transition);
        if state.first || checks.config.log_failures {
            let first_check = state.first;
            self.write(Event::Failed { failure, first_check }, checks, cluster);
        }
        stats.failure.inc();
        if on_the_way {
            stats.network_failure.inc();
        } else if failure.kind == Passive {
            stats.passive_failure.inc();
        }
        transition
    }

    /// A host that was checked counts from now on, well or not.
    fn no_longer_pending(&self, transition: Transition) -> Transition {
        match self.host.set_flag(HealthFlag::PendingActiveHc, false) {
            true => Transition::Changed,
            false => transition,
        }
    }

    fn write(&self, event: Event, checks: &HealthChecks, cluster: &Cluster) {
        let config = &checks.config;
        config.events.write(event, &config.kind, &cluster.info.name, &self.host);
    }
}

/// Whether the cluster ever had a connection: until then checks may be rare.
fn has_traffic(cluster: &Cluster) -> bool {
    cluster
        .info
        .stats
        .shards()
        .any(|s| s.upstream_cx_total.value() > 0 || s.upstream_cx_tx_bytes_total.value() > 0)
}

/// What the formatters of added headers read: there is no client.
pub fn stream_info(target: &Target, version: Version) -> StreamInfo {
    let connection = ConnectionInfo::of_nobody();
    let mut info = StreamInfo::new(Rc::new(connection), Some(version));
    info.upstream.host = Some(target.host.clone());
    info.upstream.cluster = Some(target.cluster.name.clone());
    info
}
