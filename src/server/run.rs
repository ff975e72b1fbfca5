//! The life of the process, from the command line to the exit code.

use std::{process::ExitCode, rc::Rc, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use xds_protos::{
    envoy::config::bootstrap::v3::bootstrap::StatsEviction,
    google::protobuf::Any,
    prost::{Message, Name},
};

use super::{
    HotRestart, ServerContext, State, Worker, WorkerMsg,
    hot_restart::{HotRestartError, version_text},
};
use crate::{
    bootstrap,
    cli::{Cli, Mode},
    config::BuildCx,
    net::errno_text,
    stats, xds,
};

/// Why the process ends at start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bootstrap cannot be used.
    #[error("error initializing configuration '{path}': {source}")]
    Bootstrap {
        /// `-c`, or nothing for `--config-yaml`.
        path: String,
        /// What is wrong.
        source: bootstrap::BootstrapError,
    },
    /// A static resource cannot be used.
    #[error("error initializing configuration '{path}': {source}")]
    Config {
        /// `-c`, or nothing for `--config-yaml`.
        path: String,
        /// What is wrong.
        source: crate::config::ConfigError,
    },
    /// The process has no place in a line of hot restarts.
    #[error("{0}")]
    HotRestart(#[from] HotRestartError),
    /// The system refuses threads, sockets or signals.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Runs the proxy until it is told to stop.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are not failures.
            let code = if e.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
            let _ = e.print();
            return code;
        }
    };
    if cli.hot_restart_version {
        print!(
            "{}",
            if cli.disable_hot_restart {
                "disabled".to_owned()
            } else {
                version_text()
            }
        );
        return ExitCode::SUCCESS;
    }
    if let Err(e) = super::log::start(&cli) {
        eprintln!("{e}");
        return ExitCode::FAILURE;
    }
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            if cli.mode == Mode::Validate {
                // The one line that scripts read; the log above may be switched off.
                eprintln!("{e}");
            }
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli) -> Result<(), StartError> {
    for flag in cli.without_effect() {
        tracing::warn!("{flag} has no effect");
    }
    // Before anything else: a process that has no place in the line must not disturb the one that serves.
    let hot_restart = match cli.mode {
        Mode::Validate => HotRestart::default(),
        _ => HotRestart::open(cli)?,
    };
    let path = cli
        .config_path
        .as_ref()
        .map(|p| p.display().to_string())
        .unwrap_or_default();
    let bootstrap = bootstrap::load(cli).map_err(|source| StartError::Bootstrap {
        path: path.clone(),
        source,
    })?;
    let server = ServerContext::following(hot_restart, bootstrap, cli).map_err(|source| StartError::Config {
        path: path.clone(),
        source,
    })?;
    let runtime = local_runtime()?;
    runtime.block_on(async {
        let (senders, mut receivers): (Vec<_>, Vec<_>) =
            (0..=server.concurrency).map(|_| mpsc::unbounded_channel()).unzip();
        server.mailboxes.open(senders);
        let Some(control_mailbox) = receivers.pop() else {
            return Ok(());
        };
        let control = Worker::new(server.concurrency, server.clone());
        let serving = {
            let control = control.clone();
            tokio::task::spawn_local(async move { control.serve(control_mailbox).await })
        };

        server.configure_overload().map_err(|source| StartError::Config {
            path: path.clone(),
            source,
        })?;
        static_resources(&server).map_err(|source| StartError::Config { path, source })?;
        if cli.mode == Mode::Validate {
            println!(
                "configuration '{}' OK",
                cli.config_path
                    .as_ref()
                    .map(|p| p.display().to_string())
                    .unwrap_or_default()
            );
            return Ok(());
        }
        admin(&server).map_err(|source| StartError::Config {
            path: cli_path(cli),
            source,
        })?;
        server.hot_restart.serve(&server);
        flush_stats(&server);
        watch_runtime(&server);
        if let Some(overload) = server.overload() {
            overload.start(&server);
        }
        start_workers(&server, receivers)?;
        let _subscriptions = tokio::select! {
            subscriptions = xds::start::start(&control) => subscriptions,
            stopped = wait_for_stop(&server) => return stopped,
        };
        server.set_state(State::Initializing);
        server.listeners.start(&server);
        server.set_state(State::Live);
        if cli.mode == Mode::InitOnly {
            return Ok(());
        }
        server.hot_restart.take_over(&server, flush_interval(&server));
        wait_for_stop(&server).await?;
        server.set_state(State::Draining);
        serving.abort();
        server.log_files.flush();
        Ok(())
    })
}

fn cli_path(cli: &Cli) -> String {
    cli.config_path
        .as_ref()
        .map(|p| p.display().to_string())
        .unwrap_or_default()
}

/// Starts the admin server, when the bootstrap has one.
fn admin(server: &Arc<ServerContext>) -> Result<(), crate::config::ConfigError> {
    let Some(proto) = server.bootstrap.admin.clone() else {
        return Ok(());
    };
    let Some(address) = crate::admin::start(proto, server)? else {
        return Ok(());
    };
    tracing::info!(%address, "admin server listens");
    if let Some(path) = &server.cli.admin_address_path
        && let Err(error) = crate::admin::write_address(path, &address)
    {
        tracing::error!(path = %path.display(), %error, "the admin address could not be written");
    }
    Ok(())
}

/// `stats_flush_interval` (default 5 s)
fn flush_interval(server: &ServerContext) -> Duration {
    use crate::config::DurationExt;
    let interval = server.bootstrap.stats_flush_interval;
    interval
        .or_duration(Duration::from_secs(5))
        .max(Duration::from_millis(1))
}

/// Moves interval values on every `stats_flush_interval`, and evicts statistics every so many of them.
fn flush_stats(server: &Arc<ServerContext>) {
    use crate::config::DurationExt;
    let interval = flush_interval(server);
    let eviction = match &server.bootstrap.stats_eviction {
        Some(StatsEviction::StatsEvictionInterval(every)) => Some(*every).or_duration(Duration::ZERO),
        None => Duration::ZERO,
    };
    let eviction = eviction.as_nanos() / interval.as_nanos();
    let server = server.clone();
    tokio::task::spawn_local(async move {
        let mut flushes = 0;
        loop {
            tokio::time::sleep(interval).await;
            server.refresh_stats();
            server.stats.flush();
            flushes += 1;
            if flushes == eviction {
                server.stats.evict_unused();
                flushes = 0;
            }
        }
    });
}

/// Reads the runtime again when the link of a disk layer is replaced.
fn watch_runtime(server: &Arc<ServerContext>) {
    for path in server.runtime.watched_paths() {
        match server.xds.files.file(&path) {
            Ok(changes) => {
                let server = server.clone();
                tokio::task::spawn_local(async move {
                    loop {
                        changes.changed().await;
                        server.runtime.load();
                    }
                });
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "a runtime directory cannot be watched"),
        }
    }
}

fn local_runtime() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// Builds what the bootstrap holds: the first error ends the start, as in Envoy.
fn static_resources(server: &Arc<ServerContext>) -> Result<(), crate::config::ConfigError> {
    let resources = server.static_resources.read().unwrap_or_default();
    for (index, secret) in resources.secrets.into_iter().enumerate() {
        let mut cx = BuildCx::new(server);
        cx.field("static_resources", |cx| {
            cx.item("secrets", index, |cx| server.secrets.add_static(secret, cx))
        })?;
    }
    for path in server.runtime.watched_paths() {
        let directory = path.parent().unwrap_or(&path);
        if let Err(error) = std::fs::read_dir(directory) {
            let reason = errno_text(&error);
            return Err(crate::config::ConfigError::new(
                "",
                format!("unable to add filesystem watch for file {}: {reason}", path.display()),
            ));
        }
    }
    // Clusters, listeners, routes and secrets may name ADS.
    xds::start::configure(server)?;
    let manager = server.bootstrap.cluster_manager.as_ref();
    let local = manager.map_or("", |m| &m.local_cluster_name);
    server.clusters.set_local_cluster(local);
    for cluster in resources.clusters {
        let resource = pack(&cluster);
        server.clusters.add_static(cluster, resource, server)?;
    }
    if !local.is_empty() && !server.clusters.contains(local) {
        return Err(crate::config::ConfigError::new(
            "",
            format!("local cluster '{local}' must be defined"),
        ));
    }
    for listener in resources.listeners {
        let resource = pack(&listener);
        server.listeners.add_or_update(listener, "", resource, true, server)?;
    }
    Ok(())
}

fn pack<T: Message + Name>(message: &T) -> Any {
    xds_protos::any::pack(message)
}

fn start_workers(
    server: &Arc<ServerContext>,
    mailboxes: Vec<mpsc::UnboundedReceiver<WorkerMsg>>,
) -> Result<(), StartError> {
    for (id, mailbox) in mailboxes.into_iter().enumerate() {
        let runtime = thread::Builder::new().name(format!("wrk:{id}"));
        let server = server.clone();
        runtime.spawn(move || {
            stats::enter_shard(id);
            match local_runtime() {
                Ok(runtime) => runtime.block_on(async {
                    let worker: Rc<Worker> = Worker::new(id, server);
                    worker.serve(mailbox).await;
                }),
                Err(error) => tracing::error!(id, %error, "a worker could not start"),
            }
        })?;
    }
    Ok(())
}

/// Waits for SIGTERM or SIGINT; SIGHUP is ignored, as Envoy does.
async fn wait_for_stop(server: &ServerContext) -> Result<(), StartError> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut usr1 = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => {}
            _ = usr1.recv() => server.log_files.reopen(),
            () = server.stop.notified() => break,
        }
    }
    tracing::info!("caught a signal, shutting down");
    Ok(())
}
