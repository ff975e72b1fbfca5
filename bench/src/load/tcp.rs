//! Messages there and back over long-lived TCP connections, one at a time on each.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
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
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
}

/// Prints what it saw as JSON.
pub async fn run(options: Options) -> Result<()> {
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let tasks: Vec<_> = (0..options.connections)
        .map(|_| tokio::task::spawn_local(ping_pong(options.port, options.size, end)))
        .collect();
    print_all(start, tasks).await
}

async fn ping_pong(port: u16, size: usize, end: Instant) -> Latencies {
    let mut latencies = Vec::new();
    let broken = exchange(port, size, end, &mut latencies).await.is_err();
    (latencies, u64::from(broken))
}

async fn exchange(port: u16, size: usize, end: Instant, latencies: &mut Vec<u32>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let message = vec![b'm'; size];
    let mut back = vec![0; size];
    let mut now = Instant::now();
    while now < end {
        // A message that is larger than the sockets' buffers comes back while it is still being sent.
        let (mut reader, mut writer) = stream.split();
        tokio::try_join!(writer.write_all(&message), reader.read_exact(&mut back))?;
        let then = std::mem::replace(&mut now, Instant::now());
        latencies.push((now - then).as_micros() as u32);
    }
    Ok(())
}
