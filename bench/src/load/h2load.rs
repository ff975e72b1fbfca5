//! h2load: HTTP/2 as fast as the proxy answers, and HTTP/1.1 at a fixed rate.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Seen, Target};

/// HTTP/2 with that many connections and concurrent streams on each.
pub fn run(target: &Target, tls: bool, connections: usize, streams: usize) -> Result<Seen> {
    let scheme = if tls { "https" } else { "http" };
    drive(target, scheme, &[format!("-c{connections}"), format!("-m{streams}")])
}

/// HTTP/1.1 at `rate` requests per second, spread evenly over the connections.
pub fn paced(target: &Target, connections: usize, rate: f64) -> Result<Seen> {
    let each = (rate / connections as f64).floor().max(1.0);
    drive(
        target,
        "http",
        &[format!("-c{connections}"), "--h1".into(), format!("--rps={each}")],
    )
}

fn drive(target: &Target, scheme: &str, args: &[String]) -> Result<Seen> {
    let log = target.scratch.join("h2load.log");
    // h2load appends.
    let _ = fs::remove_file(&log);
    let text = target.output(Path::new("h2load"), |command| {
        command
            .args(["-t1", &format!("-D{}", target.seconds)])
            .args(args)
            .arg(format!("--log-file={}", log.display()))
            .arg(format!("{scheme}://127.0.0.1:{}/", target.port));
    })?;
    let lines = fs::read_to_string(&log).context("h2load wrote no log")?;
    let mut errors = 0;
    let mut latencies = Vec::new();
    for line in lines.lines() {
        // start (us since the epoch), status, latency (us)
        let mut columns = line.split('\t').skip(1);
        match (columns.next(), columns.next().and_then(|text| text.parse().ok())) {
            (Some("200"), Some(latency)) => latencies.push(latency),
            _ => errors += 1,
        }
    }
    if latencies.is_empty() {
        anyhow::bail!("h2load saw no good answer: {text}");
    }
    Ok(Seen::new(latencies, target.seconds as f64, errors))
}
