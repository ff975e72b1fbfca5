//! The process log: to standard error or `--log-path`, by level.

use std::{
    fs::OpenOptions,
    io::IsTerminal,
    sync::{Mutex, OnceLock},
};

use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::cli::Cli;

type LevelHandle = reload::Handle<LevelFilter, tracing_subscriber::Registry>;
static LEVEL: OnceLock<LevelHandle> = OnceLock::new();

/// Envoy's name of a level: `trace debug info warning error critical off`.
pub fn level(name: &str) -> Option<LevelFilter> {
    Some(match name {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "err" | "critical" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        _ => return None,
    })
}

/// Starts logging. A second call in one process (tests) has no effect.
pub fn start(cli: &Cli) {
    let (filter, handle) = reload::Layer::new(level(&cli.log_level).unwrap_or(LevelFilter::INFO));
    let file = cli
        .log_path
        .as_ref()
        .and_then(|p| OpenOptions::new().create(true).append(true).open(p).ok());
    let registry = tracing_subscriber::registry().with(filter);
    let started = match file {
        Some(file) => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(false)
                    .with_writer(Mutex::new(file)),
            )
            .try_init(),
        None => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level while running (`/logging?level=debug`); false when the name is unknown.
pub fn set_level(name: &str) -> bool {
    let Some(level) = level(name) else { return false };
    LEVEL.get().is_some_and(|h| h.reload(level).is_ok())
}

/// The level in force, in Envoy's words.
pub fn current_level() -> &'static str {
    match LEVEL.get().and_then(|h| h.clone_current()) {
        Some(LevelFilter::TRACE) => "trace",
        Some(LevelFilter::DEBUG) => "debug",
        Some(LevelFilter::WARN) => "warning",
        Some(LevelFilter::ERROR) => "error",
        Some(LevelFilter::OFF) => "off",
        _ => "info",
    }
}
