//! What every part of the control side shares.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use xds_protos::envoy::config::{bootstrap::v3::Bootstrap, core::v3::Node};

use super::{ConstantStats, HotRestart, Mailboxes, OverloadManager, OverloadStats, ServerStats, memory};
use crate::{
    access_log::LogFiles,
    bootstrap::KeptResources,
    cli::{Cli, DrainStrategy},
    config::{BuildCx, ConfigResult},
    extensions::{self, Registry, common::workload::Workloads},
    listener::ListenerManager,
    runtime::Runtime,
    stats::{Stats, StatsConfig, Store},
    tls::Secrets,
    tracing::{Tracers, check_bootstrap},
    upstream::{ClusterManager, Http2CodecStats, dns::Resolvers, dynamic_forward_proxy::DnsCaches},
    xds,
};

/// Where a server stands (`envoy.admin.v3.ServerInfo.State`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Serves.
    Live = 0,
    /// Ends.
    Draining = 1,
    /// Waits for clusters.
    PreInitializing = 2,
    /// Waits for listeners and what they need.
    Initializing = 3,
}

impl State {
    /// Envoy's word, as `/ready` and `/server_info` have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// The server: one per process, shared by control, admin and workers. Read-only but for its own slots.
pub struct ServerContext {
    /// This proxy's node, as sent to control planes; filled from bootstrap and command line.
    pub node: Arc<Node>,
    /// All extensions.
    pub registry: Registry,
    /// Values that change while the proxy runs, and the keys that requests read.
    pub runtime: Runtime,
    /// All statistics.
    pub stats: Arc<Store>,
    /// Open access log files.
    pub log_files: Arc<LogFiles>,
    /// The listeners.
    pub listeners: ListenerManager,
    /// Ways to the workers and to the control thread.
    pub mailboxes: Mailboxes,
    /// Number of workers (`--concurrency`).
    pub concurrency: usize,
    /// Tracers that connection managers share.
    pub tracers: Tracers,
    /// The xDS client.
    pub xds: xds::Handle,
    /// Certificates, keys and validation contexts.
    pub secrets: Secrets,
    /// All clusters.
    pub clusters: ClusterManager,
    /// What names are resolved with.
    pub dns: Resolvers,
    /// What workload discovery knows.
    pub workloads: Arc<Workloads>,
    /// Names that the dynamic forward proxy knows.
    pub dns_caches: DnsCaches,
    /// `--drain-time-s`
    pub drain_time: Duration,
    /// `--drain-strategy`
    pub drain_strategy: DrainStrategy,
    /// The command line.
    pub cli: Cli,
    /// `server.*`
    pub server_stats: Stats<ServerStats>,
    /// `overload.*` that is there without an overload manager, too.
    pub overload_stats: Stats<OverloadStats>,
    overload: OnceLock<Arc<OverloadManager>>,
    /// `http2.*`: of all listeners; there once one of them had an HTTP/2 connection.
    pub http2_stats: OnceLock<Stats<Http2CodecStats>>,
    /// Listed, and never written.
    _constant_stats: ConstantStats,
    /// The processes before and after this one.
    pub hot_restart: HotRestart,
    /// Asks the process to end (`/quitquitquit`).
    pub stop: tokio::sync::Notify,
    state: AtomicU8,
    /// The bootstrap as it was read, without its static resources.
    pub bootstrap: Arc<Bootstrap>,
    /// The static resources of the bootstrap.
    pub static_resources: KeptResources,
    /// `envoy.bootstrap.internal_listener`: bytes that internal connections hold; none without the extension.
    pub internal_buffer: Option<usize>,
    /// When the process started, on both clocks.
    pub started: (SystemTime, Instant),
    /// Downstream connections open now, of all listeners.
    pub connections: AtomicU64,
    /// `/healthcheck/fail` was asked for: responses carry `connection: close`, health checks fail.
    pub health_failed: AtomicBool,
    connection_ids: AtomicU64,
}

impl ServerContext {
    /// A server of this bootstrap, with nothing running yet, that follows no other process.
    pub fn new(bootstrap: Bootstrap, cli: &Cli) -> ConfigResult<Arc<Self>> {
        Self::following(HotRestart::default(), bootstrap, cli)
    }

    /// The same at its place in a line of processes.
    pub fn following(hot_restart: HotRestart, mut bootstrap: Bootstrap, cli: &Cli) -> ConfigResult<Arc<Self>> {
        let concurrency = cli.concurrency.unwrap_or_else(super::cpus::available).max(1);
        let stats = Store::with_imports(
            StatsConfig::from_proto(bootstrap.stats_config.clone().unwrap_or_default(), &[])?,
            concurrency,
            hot_restart.imports_stats(),
        );
        let registry = extensions::register_all();
        let node = Arc::new(xds::node::complete(
            bootstrap.node.clone().unwrap_or_default(),
            &registry,
        ));
        let layers = bootstrap.layered_runtime.clone().unwrap_or_default();
        let server_stats = stats.scope("server.").block();
        let overload_stats = stats.scope("overload.").block();
        let constant_stats = ConstantStats::new(&stats, concurrency);
        let internal_buffer = super::internal::internal_buffer(&bootstrap)?;
        let server = Arc::new(Self {
            hot_restart,
            internal_buffer,
            runtime: Runtime::new(layers, &node.cluster, &stats)?,
            node,
            registry,
            listeners: ListenerManager::new(&stats),
            log_files: Arc::new(LogFiles::new(
                &stats,
                concurrency + 1,
                Duration::from_millis(cli.file_flush_interval_msec.max(1)),
                usize::try_from(cli.file_flush_min_size_kb.saturating_mul(1024)).unwrap_or(usize::MAX),
            )),
            clusters: ClusterManager::new(&stats),
            dns: Resolvers::default(),
            workloads: Arc::default(),
            dns_caches: DnsCaches::default(),
            stats,
            tracers: Tracers::default(),
            xds: xds::Handle::default(),
            secrets: Secrets::default(),
            mailboxes: Mailboxes::default(),
            concurrency,
            drain_time: cli.drain_time(),
            server_stats,
            overload_stats,
            overload: OnceLock::new(),
            http2_stats: OnceLock::new(),
            _constant_stats: constant_stats,
            stop: tokio::sync::Notify::new(),
            state: AtomicU8::new(State::PreInitializing as u8),
            cli: cli.clone(),
            drain_strategy: cli.drain_strategy,
            static_resources: KeptResources::take(&mut bootstrap),
            bootstrap: Arc::new(bootstrap),
            started: (SystemTime::now(), Instant::now()),
            connections: AtomicU64::new(0),
            health_failed: AtomicBool::new(false),
            connection_ids: AtomicU64::new(0),
        });
        let ejections = server
            .bootstrap
            .cluster_manager
            .as_ref()
            .and_then(|m| m.outlier_detection.as_ref());
        if let Some(log) = ejections.filter(|o| !o.event_log_path.is_empty()) {
            server
                .clusters
                .open_ejection_log(&log.event_log_path, &server.log_files)?;
        }
        check_bootstrap(&mut BuildCx::new(&server))?;
        let weak = Arc::downgrade(&server);
        server.runtime.on_change(move |before, now| {
            if (before.has_circuit_breakers() || now.has_circuit_breakers())
                && let Some(server) = weak.upgrade()
            {
                server.clusters.apply_runtime(now);
            }
        });
        Ok(server)
    }

    /// Builds the overload manager, before anything that asks for it.
    ///
    /// # Errors
    /// See [`OverloadManager::build`].
    pub fn configure_overload(self: &Arc<Self>) -> ConfigResult<()> {
        if let Some(overload) = OverloadManager::build(self)? {
            let _ = self.overload.set(overload);
        }
        Ok(())
    }

    /// The overload manager, where the bootstrap has one.
    #[inline]
    pub fn overload(&self) -> Option<&Arc<OverloadManager>> {
        self.overload.get()
    }

    /// Where the server stands.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 if self.health_failed.load(Ordering::Relaxed) => State::Draining,
            0 => State::Live,
            1 => State::Draining,
            3 => State::Initializing,
            _ => State::PreInitializing,
        }
    }

    /// `http2.*`, for an HTTP/2 connection of a listener that opens.
    pub fn http2_stats(&self) -> &Stats<Http2CodecStats> {
        self.http2_stats.get_or_init(|| self.stats.root().block())
    }

    /// Moves on to another state.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
        let stats = self.server_stats.local();
        if state == State::Live {
            stats.live.set(1);
            stats
                .initialization_time_ms
                .record(u64::try_from(self.started.1.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        self.refresh_stats();
    }

    /// Reads what the system knows into `server.*`: called when somebody looks, and at every flush.
    pub fn refresh_stats(&self) {
        let stats = self.server_stats.local();
        let memory = memory();
        stats.concurrency.set(self.concurrency as u64);
        // Of both processes while there are two: the machine has to carry them.
        let parent = self.hot_restart.parent_numbers();
        stats.hot_restart_epoch.set(u64::from(self.cli.restart_epoch));
        if self.hot_restart.generation() > 0 {
            stats.hot_restart_generation.set(self.hot_restart.generation());
        }
        stats.days_until_first_cert_expiring.set(u64::from(u32::MAX));
        stats.memory_allocated.set(memory.allocated + parent.allocated);
        stats.memory_heap_size.set(memory.heap + parent.heap);
        stats.memory_physical_size.set(memory.physical + parent.physical);
        stats.parent_connections.set(parent.connections);
        stats.state.set(self.state() as u64);
        stats
            .total_connections
            .set(self.connections.load(Ordering::Relaxed) + parent.connections);
        stats.uptime.set(self.uptime_of_all().as_secs());
    }

    /// Time since the first process of a line of hot restarts started.
    pub fn uptime_of_all(&self) -> Duration {
        let before = self.hot_restart.first_started();
        let before = before.and_then(|first| self.started.0.duration_since(first).ok());
        before.unwrap_or_default() + self.started.1.elapsed()
    }

    /// A number no other connection of this process has.
    pub fn next_connection_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed)
    }
}
