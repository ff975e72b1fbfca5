//! Side-by-side measurements of nuncio, Envoy, nginx and HAProxy.
//!
//! `nuncio-bench run` starts every proxy it finds, each with one worker on one core, gives them the
//! same work from the other core in interleaved rounds (A, B, C, A, B, C ...), and writes a table
//! and charts. The main figure is processor time of the proxy per request, because it survives a
//! noisy machine; rates and latencies stand beside it.
//!
//! The other subcommands are the pieces `run` starts on the load core: the backend and the loads
//! that neither wrk nor h2load can make.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod backend;
mod certs;
mod churn;
mod clusters;
mod http;
mod load;
mod machine;
mod memory;
mod process;
mod proxies;
mod report;
mod rows;
mod run;
mod sample;
mod waypoint;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "nuncio-bench", about = "nuncio beside Envoy, nginx and HAProxy")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, then write the table and the charts.
    Run(run::Options),
    /// Write the table and the charts again from the raw figures of the last run.
    Report {
        /// Where the raw figures are and the report goes.
        #[arg(long, default_value = "bench/results")]
        out: PathBuf,
    },
    /// List the rows.
    Rows,
    /// The HTTP and echo servers behind the proxies.
    #[command(hide = true)]
    Backend,
    /// A connection, a request, close; again and again.
    #[command(hide = true)]
    LoadConnect(load::connect::Options),
    /// Messages there and back over many connections.
    #[command(hide = true)]
    LoadTcp(load::tcp::Options),
    /// One TLS handshake, one request, close; again and again.
    #[command(hide = true)]
    LoadHandshake(load::handshake::Options),
    /// Requests through the tunnels of a mesh.
    #[command(hide = true)]
    LoadHbone(load::hbone::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Report { out } => report::write(&out, &report::read_raw(&out)?),
        Command::Rows => {
            for row in rows::ROWS {
                println!("{:<16} {}", row.name, row.title);
            }
            Ok(())
        }
        Command::Backend => load::on_one_thread(backend::serve()),
        Command::LoadConnect(options) => load::on_one_thread(load::connect::run(options)),
        Command::LoadTcp(options) => load::on_one_thread(load::tcp::run(options)),
        Command::LoadHandshake(options) => load::on_one_thread(load::handshake::run(options)),
        Command::LoadHbone(options) => load::on_one_thread(load::hbone::run(options)),
    }
}
