//! What every part of the control side shares.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use xds_protos::envoy::config::{bootstrap::v3::Bootstrap, core::v3::Node};

use super::Mailboxes;
use crate::{
    cli::{Cli, DrainStrategy},
    extensions::{self, Registry},
    listener::ListenerManager,
    stats::Store,
    upstream::ClusterManager,
    xds,
};

/// The server: one per process, shared by control, admin and workers. Read-only but for its own slots.
pub struct ServerContext {
    /// This proxy's node, as sent to control planes; filled from bootstrap and command line.
    pub node: Arc<Node>,
    /// All extensions.
    pub registry: Registry,
    /// All statistics.
    pub stats: Arc<Store>,
    /// The listeners.
    pub listeners: ListenerManager,
    /// Ways to the workers and to the control thread.
    pub mailboxes: Mailboxes,
    /// Number of workers (`--concurrency`).
    pub concurrency: usize,
    /// The xDS client.
    pub xds: xds::Handle,
    /// All clusters.
    pub clusters: ClusterManager,
    /// `--drain-time-s`
    pub drain_time: Duration,
    /// `--drain-strategy`
    pub drain_strategy: DrainStrategy,
    /// The bootstrap as it was read.
    pub bootstrap: Arc<Bootstrap>,
    /// When the process started, on both clocks.
    pub started: (SystemTime, Instant),
    /// Downstream connections open now, of all listeners.
    pub connections: AtomicU64,
    /// `/healthcheck/fail` was asked for: responses carry `connection: close`, health checks fail.
    pub health_failed: AtomicBool,
    connection_ids: AtomicU64,
}

impl ServerContext {
    /// A server of this bootstrap, with nothing running yet.
    pub fn new(bootstrap: Bootstrap, cli: &Cli) -> Arc<Self> {
        let concurrency = cli.concurrency.unwrap_or_else(super::cpus::available).max(1);
        let stats = Store::new(Default::default(), concurrency);
        let registry = extensions::register_all();
        Arc::new(Self {
            node: Arc::new(xds::node::complete(
                bootstrap.node.clone().unwrap_or_default(),
                &registry,
            )),
            registry,
            listeners: ListenerManager::new(&stats),
            xds: xds::Handle::default(),
            clusters: ClusterManager::new(&stats),
            stats,
            mailboxes: Mailboxes::default(),
            concurrency,
            drain_time: cli.drain_time(),
            drain_strategy: cli.drain_strategy,
            bootstrap: Arc::new(bootstrap),
            started: (SystemTime::now(), Instant::now()),
            connections: AtomicU64::new(0),
            health_failed: AtomicBool::new(false),
            connection_ids: AtomicU64::new(0),
        })
    }

    /// A number no other connection of this process has.
    pub fn next_connection_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed)
    }
}
