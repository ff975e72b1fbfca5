//! Load generators: each drives one port of one proxy for a bounded time and says what it saw.

pub mod connect;
pub mod h2load;
pub mod handshake;
pub mod hbone;
pub mod tcp;
pub mod wrk;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::process;

/// What a load generator saw.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Good answers.
    pub requests: f64,
    pub seconds: f64,
    /// Bad answers and broken connections.
    pub errors: f64,
    /// Latency percentiles in microseconds.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Seen {
    /// Sorts the latencies (microseconds) and takes the percentiles.
    pub fn new(mut latencies: Vec<u32>, seconds: f64, errors: u64) -> Seen {
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies.get(index).or(latencies.last()).copied().unwrap_or(0).into()
        };
        Seen {
            requests: latencies.len() as f64,
            seconds,
            errors: errors as f64,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

/// What one connection of a load saw: latencies in microseconds, and how many answers were bad.
pub type Latencies = (Vec<u32>, u64);

/// Waits for the connections of a load and prints what they saw together, as JSON.
pub async fn print_all(start: Instant, connections: Vec<JoinHandle<Latencies>>) -> Result<()> {
    let mut latencies = Vec::new();
    let mut errors = 0;
    for connection in connections {
        let (mut some, failed) = connection.await?;
        latencies.append(&mut some);
        errors += failed;
    }
    let seen = Seen::new(latencies, start.elapsed().as_secs_f64(), errors);
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// Where and how long a load runs.
pub struct Target<'a> {
    pub core: usize,
    pub port: u16,
    pub seconds: u64,
    /// A directory for scripts and logs.
    pub scratch: &'a Path,
}

impl Target<'_> {
    /// Runs the program on the load core and returns what it printed.
    fn output(&self, program: &Path, configure: impl FnOnce(&mut Command)) -> Result<String> {
        let mut command = process::pinned(self.core, program);
        configure(&mut command);
        let output = command
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("{}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {} {text}{errors}", program.display(), output.status);
        }
        Ok(text)
    }

    /// Runs one of this program's own loads.
    pub fn own(&self, subcommand: &str, args: &[String]) -> Result<Seen> {
        let port = self.port.to_string();
        let seconds = self.seconds.to_string();
        let text = self.output(&own_program()?, |command| {
            command
                .args([subcommand, "--port", &port, "--seconds", &seconds])
                .args(args);
        })?;
        serde_json::from_str(&text).with_context(|| format!("{subcommand} printed: {text}"))
    }
}

/// This executable.
pub fn own_program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?)
}

/// Runs a future on one thread, with `spawn_local` available.
pub fn on_one_thread<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_series() {
        let seen = Seen::new((1..=1000).rev().collect(), 2.0, 3);
        assert_eq!((seen.p50, seen.p99, seen.p999), (501.0, 991.0, 1000.0));
        assert_eq!((seen.requests, seen.errors), (1000.0, 3.0));
    }

    #[test]
    fn no_latency_is_no_panic() {
        assert_eq!(Seen::new(vec![], 1.0, 0).p99, 0.0);
    }
}
