//! The process log: to standard error or `--log-path`, by level. Envoy's loggers have levels of their own,
//! from `--component-log-level` and `/logging`.

mod loggers;

use std::{
    fs::OpenOptions,
    io::IsTerminal,
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use self::loggers::LOGGERS;
use crate::cli::Cli;

/// One of Envoy's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `trace`
    Trace,
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `warning`
    Warning,
    /// `error`
    Error,
    /// `critical`: what we write as errors.
    Critical,
    /// `off`
    Off,
}

impl Level {
    const ALL: [Self; 7] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Off,
    ];

    /// Envoy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    /// By Envoy's name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warning => LevelFilter::WARN,
            Self::Error | Self::Critical => LevelFilter::ERROR,
            Self::Off => LevelFilter::OFF,
        }
    }
}

/// Why a level was not changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No logger has this name.
    #[error("unknown logger name")]
    UnknownLogger(String),
    /// No level has this name.
    #[error("unknown logger level")]
    UnknownLevel(String),
    /// A pair without one of its sides.
    #[error("empty logger name or empty logger level")]
    Incomplete(String),
}

/// The levels in force.
#[derive(Clone)]
struct Levels {
    /// Of what belongs to no logger.
    default: Level,
    each: [Level; LOGGERS.len()],
}

impl Levels {
    fn all(level: Level) -> Self {
        Self {
            default: level,
            each: [level; LOGGERS.len()],
        }
    }

    fn set(&mut self, logger: &str, level: &str) -> Result<(), LogError> {
        let place = LOGGERS
            .iter()
            .position(|(name, _)| *name == logger)
            .ok_or_else(|| LogError::UnknownLogger(logger.to_owned()))?;
        self.each[place] = Level::by_name(level).ok_or_else(|| LogError::UnknownLevel(level.to_owned()))?;
        Ok(())
    }

    /// `a:debug,b:info`
    fn set_pairs(&mut self, pairs: &str) -> Result<(), LogError> {
        for pair in pairs.split(',').filter(|p| !p.is_empty()) {
            let (logger, level) = pair
                .split_once(':')
                .filter(|(logger, level)| !logger.is_empty() && !level.is_empty())
                .ok_or_else(|| LogError::Incomplete(pair.to_owned()))?;
            self.set(logger, level)?;
        }
        Ok(())
    }

    fn targets(&self) -> Targets {
        // One level for all needs no names. Otherwise all are named: what stays at the default may lie within
        // a module that does not.
        let of_modules = LOGGERS
            .iter()
            .zip(self.each)
            .filter(|_| self.each.iter().any(|level| *level != self.default))
            .flat_map(|((_, modules), level)| modules.iter().map(move |module| (*module, level.filter())));
        Targets::new()
            .with_default(self.default.filter())
            .with_targets(of_modules)
    }
}

struct Log {
    handle: reload::Handle<Targets, Registry>,
    levels: Mutex<Levels>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts logging. A second call in one process (tests) has no effect.
pub fn start(cli: &Cli) -> Result<(), StartError> {
    let level = match cli.log_level.as_str() {
        "warn" => Level::Warning,
        "err" => Level::Error,
        name => Level::by_name(name).unwrap_or(Level::Info),
    };
    let mut levels = Levels::all(level);
    levels.set_pairs(&cli.component_log_level)?;
    let (filter, handle) = reload::Layer::new(levels.targets());
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
        let levels = Mutex::new(levels);
        let _ = LOG.set(Log { handle, levels });
    }
    Ok(())
}

/// `--component-log-level` that cannot be understood, in Envoy's words.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No such component.
    #[error("error: invalid component specified '{0}'")]
    Component(String),
    /// No such level.
    #[error("error: invalid log level specified '{0}'")]
    Level(String),
    /// Not `component:level`.
    #[error("error: component log level not correctly specified '{0}'")]
    Pair(String),
}

impl From<LogError> for StartError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::UnknownLogger(name) => Self::Component(name),
            LogError::UnknownLevel(name) => Self::Level(name),
            LogError::Incomplete(pair) => Self::Pair(pair),
        }
    }
}

/// Gives every logger this level.
pub fn set_all(level: &str) -> Result<(), LogError> {
    let level = Level::by_name(level).ok_or_else(|| LogError::UnknownLevel(level.to_owned()))?;
    change(|levels| {
        *levels = Levels::all(level);
        Ok(())
    })
}

/// Gives one logger this level.
pub fn set(logger: &str, level: &str) -> Result<(), LogError> {
    change(|levels| levels.set(logger, level))
}

/// `a:debug,b:info`; with an error among them nothing changes.
pub fn set_pairs(pairs: &str) -> Result<(), LogError> {
    change(|levels| levels.set_pairs(pairs))
}

fn change(with: impl FnOnce(&mut Levels) -> Result<(), LogError>) -> Result<(), LogError> {
    let Some(log) = LOG.get() else {
        return with(&mut Levels::all(Level::Info));
    };
    let mut levels = log.levels.lock().unwrap_or_else(PoisonError::into_inner);
    let mut changed = levels.clone();
    with(&mut changed)?;
    // It fails only when the log is gone, at the end of the process.
    let _ = log.handle.reload(changed.targets());
    *levels = changed;
    Ok(())
}

/// Every logger and its level, in Envoy's order.
pub fn levels() -> impl Iterator<Item = (&'static str, &'static str)> {
    let levels = match LOG.get() {
        Some(log) => log.levels.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        None => Levels::all(Level::Info),
    };
    LOGGERS
        .iter()
        .zip(levels.each)
        .map(|((name, _), level)| (*name, level.name()))
}

#[cfg(test)]
mod tests;
