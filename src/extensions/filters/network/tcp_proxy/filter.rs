//! One proxied connection.

use std::{rc::Rc, sync::Arc, time::Instant};

use super::{
    choice,
    config::{Config, TcpProxyStats},
};
use crate::{
    access_log::LogCx,
    http::{ConnectionInfo, Flag, StreamInfo, stream_info::SharedObjects},
    net::{CopyEnd, CopyProgress, copy},
    network_filter::Connection,
    server::Worker,
    upstream::{
        ClusterInfo, Demanded, HostResult, LbContext, OnDemandClusters, PoolOptions, ResourcePriority, TcpLease,
        TransportOptions,
    },
};

/// Filter state that names the cluster, before the configuration does.
pub(in crate::extensions::filters) const CLUSTER: &str = "envoy.tcp_proxy.cluster";

/// Connects upstream and copies until either side is done. The log line is written even when the future is dropped.
pub(super) async fn serve(config: Arc<Config>, worker: Rc<Worker>, connection: Connection) {
    let stats = config.stats.local();
    stats.downstream_cx_total.inc();
    let mut session = Session {
        info: StreamInfo::new(connection.info.clone(), None),
        progress: CopyProgress::default(),
        config: &config,
        stats,
        upstream: None,
    };
    if config.log_on_start {
        session.log("TcpConnectionStart");
    }
    let Some(lease) = connect(&mut session, &worker).await else {
        return;
    };
    if config.log_on_connected {
        session.log("TcpUpstreamConnected");
    }
    let end = {
        let copying = copy(connection.stream, lease.stream, config.idle_timeout, &session.progress);
        match config.max_duration {
            None => Some(copying.await),
            Some(limit) => tokio::time::timeout(limit, copying).await.ok(),
        }
    };
    match end {
        Some(CopyEnd::Idle) => stats.idle_timeout.inc(),
        None => {
            stats.max_downstream_connection_duration.inc();
            session.info.flags.set(Flag::DurationTimeout);
        }
        Some(CopyEnd::Finished | CopyEnd::FirstFailed | CopyEnd::SecondFailed) => {}
    }
}

/// The line of a connection that a filter before this one closed.
pub(super) fn refused(config: &Config, info: &Rc<ConnectionInfo>, flag: Option<Flag>) {
    let mut session = Session {
        info: StreamInfo::new(info.clone(), None),
        progress: CopyProgress::default(),
        config,
        stats: config.stats.local(),
        upstream: None,
    };
    if let Some(flag) = flag {
        session.info.flags.set(flag);
    }
}

/// What is counted and logged when the connection ends, however it ends.
struct Session<'a> {
    info: StreamInfo,
    progress: CopyProgress,
    config: &'a Config,
    stats: &'a TcpProxyStats,
    /// Set once there is a connection to it.
    upstream: Option<Arc<ClusterInfo>>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let (received, sent) = (self.progress.forward.get(), self.progress.back.get());
        self.stats.downstream_cx_rx_bytes_total.add(received);
        self.stats.downstream_cx_tx_bytes_total.add(sent);
        if let Some(cluster) = &self.upstream {
            let stats = cluster.stats.local();
            stats.upstream_cx_tx_bytes_total.add(received);
            stats.upstream_cx_rx_bytes_total.add(sent);
        }
        let progress = &self.info.progress;
        progress.bytes_received.set(received);
        progress.bytes_sent.set(sent);
        progress.upstream_bytes_sent.set(received);
        progress.upstream_bytes_received.set(sent);
        self.info.end = Some(Instant::now());
        // What filters before this one found out is the connection's, and so is the line.
        let connection = self.info.connection.clone();
        self.info.metadata.clone_from(&connection.metadata.borrow());
        for flag in connection.flags.get().iter() {
            self.info.flags.set(flag);
        }
        if let Some(details) = connection.code_details.get() {
            self.info.response_code_details = Some(details.into());
        }
        if let Some(details) = connection.termination_details.take() {
            self.info.connection_termination_details = Some(details.into());
        }
        self.log("TcpConnectionEnd");
    }
}

impl Session<'_> {
    /// Writes a line of this type (`%ACCESS_LOG_TYPE%`).
    fn log(&mut self, kind: &'static str) {
        self.info.access_log_type = kind;
        if !self.config.access_log.is_empty() {
            self.config.access_log.log(&LogCx {
                request: None,
                response: None,
                info: &self.info,
            });
        }
    }
}

/// Waits for a cluster that is not there yet.
async fn demand(stats: &TcpProxyStats, clusters: &Arc<OnDemandClusters>, name: &str, worker: &Rc<Worker>) {
    stats.on_demand_cluster_attempt.inc();
    match clusters.demand(name, worker).await {
        Demanded::Found => stats.on_demand_cluster_success.inc(),
        Demanded::Missing => stats.on_demand_cluster_missing.inc(),
        Demanded::TimedOut => stats.on_demand_cluster_timeout.inc(),
    }
}

async fn connect(session: &mut Session<'_>, worker: &Rc<Worker>) -> Option<TcpLease> {
    let of_connection = {
        let state = session.info.connection.filter_state.borrow();
        state
            .get(CLUSTER)
            .and_then(|o| o.as_text())
            .map(|name| Arc::<str>::from(&*name))
    };
    let clusters = &session.config.clusters;
    let (name, metadata_match) = match of_connection {
        Some(name) => (name, &clusters.metadata_match),
        None => {
            let chosen = clusters.choose(fastrand::u64(..));
            (chosen.name.clone(), &chosen.metadata_match)
        }
    };
    let criteria = choice::criteria(metadata_match.as_deref(), &session.info.connection);
    let hash = session
        .config
        .hash
        .as_ref()
        .and_then(|h| h.hash(&session.info.connection));
    session.info.upstream.cluster = Some(name.clone());
    if let Some(on_demand) = &session.config.on_demand
        && worker.clusters.get(&name).is_none()
    {
        demand(session.stats, on_demand, &name, worker).await;
    }
    let Some(cluster) = worker.clusters.get(&name) else {
        session.stats.downstream_cx_no_route.inc();
        session.info.flags.set(Flag::NoClusterFound);
        return None;
    };
    session.info.upstream.cluster_observability_name = Some(cluster.info.observability_name.clone());
    for _ in 0..session.config.max_connect_attempts {
        if !cluster
            .info
            .resources(ResourcePriority::Default)
            .connections
            .can_create()
        {
            cluster.info.stats.local().upstream_cx_overflow.inc();
            session.info.flags.set(Flag::UpstreamOverflow);
            return None;
        }
        let Some(host) = cluster.pick(&LbContext {
            info: Some(&session.info),
            metadata_match: criteria.as_deref(),
            hash,
            ..LbContext::default()
        }) else {
            session.info.flags.set(Flag::NoHealthyUpstream);
            return None;
        };
        if let Some(previous) = session.info.upstream.host.replace(host.clone()) {
            session.info.upstream.earlier_hosts.push(previous);
        }
        session.info.upstream.attempts += 1;
        // Here every host that was chosen counts.
        session.info.upstream.connected = true;
        let mut options = PoolOptions {
            shared: SharedObjects::of(
                &session.info.filter_state,
                &session.info.connection.filter_state.borrow(),
            ),
            ..PoolOptions::default()
        };
        if cluster.info.sockets.speaks_proxy_protocol() {
            options.transport = TransportOptions::with_proxy(None, &session.info);
        }
        match cluster.tcp(&host, &options).await {
            Ok(lease) => {
                cluster.report(&host, HostResult::Served);
                let upstream = &mut session.info.upstream;
                upstream.local_address = Some(lease.conn.local_address.clone());
                upstream.remote_address = Some(lease.conn.remote_address.clone());
                upstream.tls.clone_from(&lease.conn.tls);
                upstream.connection_id = Some(lease.conn.id);
                let owner = cluster.owner(&host);
                session.upstream = Some(owner.as_ref().unwrap_or(&cluster).info.clone());
                return Some(lease);
            }
            Err(failure) => {
                if !failure.is_overflow() {
                    cluster.report(&host, HostResult::Failed);
                }
                // A full queue leaves no flag of its own.
                if !failure.is_overflow() {
                    session.info.flags.set(Flag::UpstreamConnectionFailure);
                }
                session.info.upstream.transport_failure = failure.transport_failure_reason().map(str::to_owned);
            }
        }
    }
    cluster.info.stats.local().upstream_cx_connect_attempts_exceeded.inc();
    session.info.flags.set(Flag::UpstreamRetryLimitExceeded);
    None
}
