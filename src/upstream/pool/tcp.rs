//! Connections of one's own: TCP proxying. Counted and limited like pooled ones.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use super::{PoolOptions, UpstreamConnInfo, connect, core::millis};
use crate::{
    net::Stream,
    server::ServerContext,
    upstream::{ClusterInfo, ConnectFailure, Host, ResourcePriority},
};

/// A connection of one's own.
pub struct TcpLease {
    /// The byte stream, behind its transport socket.
    pub stream: Stream,
    /// Its facts.
    pub conn: Arc<UpstreamConnInfo>,
    /// Keeps it counted: hold it as long as the stream.
    pub counted: TcpCounted,
}

/// The hold of a connection on breakers and statistics.
pub struct TcpCounted {
    cluster: Arc<ClusterInfo>,
    host: Arc<Host>,
    priority: ResourcePriority,
    started: Instant,
    /// Set it when this side closes first: decides between `destroy_local` and `destroy_remote`.
    pub closed_locally: bool,
}

impl TcpCounted {
    fn new(cluster: Arc<ClusterInfo>, host: Arc<Host>, priority: ResourcePriority) -> Self {
        let stats = cluster.stats.local();
        stats.upstream_cx_total.inc();
        stats.upstream_cx_active.inc();
        host.stats.cx_total.fetch_add(1, Relaxed);
        host.stats.cx_active.fetch_add(1, Relaxed);
        cluster.resources(priority).connections.inc();
        Self {
            cluster,
            host,
            priority,
            started: Instant::now(),
            closed_locally: false,
        }
    }
}

impl Drop for TcpCounted {
    fn drop(&mut self) {
        let stats = self.cluster.stats.local();
        stats.upstream_cx_active.dec();
        stats.upstream_cx_destroy.inc();
        match self.closed_locally {
            true => stats.upstream_cx_destroy_local.inc(),
            false => stats.upstream_cx_destroy_remote.inc(),
        }
        stats.upstream_cx_length_ms.record(millis(self.started.elapsed()));
        self.host.stats.cx_active.fetch_sub(1, Relaxed);
        self.cluster.resources(self.priority).connections.dec();
    }
}

/// Opens a connection.
pub async fn connect(
    cluster: Arc<ClusterInfo>,
    host: Arc<Host>,
    server: &ServerContext,
    options: &PoolOptions,
) -> Result<TcpLease, ConnectFailure> {
    let stats = cluster.stats.local();
    if !cluster.resources(options.priority).connections.can_create() {
        stats.upstream_cx_overflow.inc();
        return Err(ConnectFailure::Overflow);
    }
    let counted = TcpCounted::new(cluster.clone(), host.clone(), options.priority);
    let id = server.next_connection_id();
    match connect::connect(&cluster, &host, options.transport.as_deref(), &[], id).await {
        Ok(connected) => {
            stats.upstream_cx_connect_ms.record(millis(connected.info.connect_time));
            Ok(TcpLease {
                stream: connected.stream,
                conn: Arc::new(connected.info),
                counted,
            })
        }
        Err(failure) => {
            if failure == ConnectFailure::Timeout {
                stats.upstream_cx_connect_timeout.inc();
            }
            stats.upstream_cx_connect_fail.inc();
            host.stats.cx_connect_fail.fetch_add(1, Relaxed);
            Err(failure)
        }
    }
}
