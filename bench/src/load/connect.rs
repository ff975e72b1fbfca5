//! One cleartext connection, one request, close; again and again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Latencies, print_all};

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    seconds: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// How many addresses of this machine are connected to, one after the other.
    #[arg(long, default_value_t = 1)]
    addresses: usize,
}

/// The address of filter chain `n`: with one chain it is 127.0.0.1, as everywhere else.
pub fn address(n: usize) -> Ipv4Addr {
    let [.., high, low] = u32::try_from(n).unwrap_or_default().to_be_bytes();
    match n {
        0 => Ipv4Addr::LOCALHOST,
        _ => Ipv4Addr::new(127, 1, high, low),
    }
}

/// Prints what it saw as JSON.
pub async fn run(options: Options) -> Result<()> {
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let tasks: Vec<_> = (0..options.connections)
        .map(|n| tokio::task::spawn_local(again_and_again(options.port, n, options.addresses.max(1), end)))
        .collect();
    print_all(start, tasks).await
}

async fn again_and_again(port: u16, first: usize, addresses: usize, end: Instant) -> Latencies {
    let mut latencies = Vec::new();
    let mut errors = 0;
    // A step that is prime to most numbers: neighbours in time are not neighbours in the configuration.
    for n in (first..).step_by(977) {
        let start = Instant::now();
        if start >= end {
            break;
        }
        match one(address(n % addresses), port).await {
            Ok(()) => latencies.push(start.elapsed().as_micros() as u32),
            Err(_) => errors += 1,
        }
    }
    (latencies, errors)
}

async fn one(address: Ipv4Addr, port: u16) -> Result<()> {
    let mut stream = TcpStream::connect((address, port)).await?;
    stream.set_nodelay(true)?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: bench.example\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::with_capacity(1024);
    while stream.read_buf(&mut answer).await? > 0 {}
    let good = answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(crate::backend::SMALL_BODY);
    good.then_some(()).context("not a good answer")
}
