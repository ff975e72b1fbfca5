//! wrk: HTTP/1.1 with and without TLS, as fast as the proxy answers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Seen, Target};

/// wrk's own report stops at the 99th percentile and rounds; this prints all of it in microseconds.
const REPORT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"#;

/// Drives the port with that many keep-alive connections.
pub fn run(target: &Target, tls: bool, connections: usize, path: &str) -> Result<Seen> {
    let script = target.scratch.join("report.lua");
    fs::write(&script, REPORT)?;
    let scheme = if tls { "https" } else { "http" };
    let text = target.output(Path::new("wrk"), |command| {
        command
            .args([
                "-t1",
                &format!("-c{connections}"),
                &format!("-d{}s", target.seconds),
                "-s",
            ])
            .arg(&script)
            .arg(format!("{scheme}://127.0.0.1:{}{path}", target.port));
    })?;
    let numbers: Vec<f64> = text
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .map(|line| line.split(' ').filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let [requests, duration, errors, p50, p99, p999] = numbers[..] else {
        return Err(anyhow::anyhow!("{text}")).context("wrk printed no result");
    };
    Ok(Seen {
        requests: requests - errors,
        seconds: duration / 1e6,
        errors,
        p50,
        p99,
        p999,
    })
}
