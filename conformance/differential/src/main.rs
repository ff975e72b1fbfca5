//! `cargo run -p differential -- [--only REGEX] [--envoy-only] [--show]`: what does Envoy do, and
//! does nuncio do the same?

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    differential::cli::main(differential::cli::Args::parse())
}
