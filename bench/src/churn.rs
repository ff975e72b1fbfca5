//! Requests at a fixed rate while the route table changes: what a busy control plane costs traffic.
//!
//! The table comes from a file that is replaced by renaming, so no control plane stands between.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::http;
use crate::load::{Seen, Target, h2load};
use crate::process::{self, Cpu, Process};
use crate::proxies::{Ports, Proxy, Setup, with_routes_from};

/// Virtual hosts in the table; one of them changes with each update.
const VIRTUAL_HOSTS: usize = 50;

/// What churn measured: the load's view, and the processor time of the proxy.
pub struct Churned {
    pub seen: Seen,
    pub cpu: Cpu,
    /// Updates that the proxy says it applied.
    pub updates: f64,
}

/// Starts a process for it, measures, ends it.
pub fn measure<'a>(
    proxy: &Proxy,
    setup: &Setup,
    target: impl FnOnce(u16) -> Target<'a>,
    connections: usize,
    rate: f64,
    per_second: u32,
) -> Result<Churned> {
    let ports = Ports::free(proxy.kind)?;
    let routes = Routes {
        file: setup.scratch.join("routes.yaml"),
        next: setup.scratch.join("routes.next"),
    };
    routes.publish(0)?;
    let config = setup.scratch.join("churn.yaml");
    fs::write(&config, with_routes_from(&routes.file, ports, setup.http_backend))?;
    let log = setup.scratch.join(format!("{}-churn.out", proxy.kind.name()));
    let mut process = Process::start(proxy.kind.name(), proxy.envoy_command(setup.core, &config), &log)?;
    let ready = || http::get(ports.http1, "bench.example", "/").is_ok();
    process::wait_until(&mut process, Duration::from_secs(20), ready)?;
    let stop = AtomicBool::new(false);
    let before = process.cpu()?;
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| routes.keep_publishing(per_second, &stop));
        let seen = h2load::paced(&target(ports.http1), connections, rate);
        stop.store(true, Ordering::Relaxed);
        seen
    })?;
    let cpu = process.cpu()?.since(before);
    Ok(Churned {
        seen,
        cpu,
        updates: updates(ports.admin)?,
    })
}

struct Routes {
    file: PathBuf,
    next: PathBuf,
}

impl Routes {
    fn keep_publishing(&self, per_second: u32, stop: &AtomicBool) {
        let start = Instant::now();
        let mut version = 0;
        while !stop.load(Ordering::Relaxed) {
            version += 1;
            let due = start + Duration::from_secs(1) * version / per_second;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // A full disk shows as missing updates in the table.
            let _ = self.publish(version);
        }
    }

    fn publish(&self, version: u32) -> Result<()> {
        let mut text = format!(
            "version_info: '{version}'
resources:
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: local
  virtual_hosts:
  - {{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: backend}}}}]}}\n"
        );
        for n in 0..VIRTUAL_HOSTS {
            let path = if n == version as usize % VIRTUAL_HOSTS {
                version
            } else {
                0
            };
            text.push_str(&format!(
                "  - {{name: host-{n}, domains: [host-{n}.example], routes: [{{match: {{prefix: /{path}}}, route: {{cluster: backend}}}}]}}\n"
            ));
        }
        fs::write(&self.next, text)?;
        fs::rename(&self.next, &self.file)?;
        Ok(())
    }
}

fn updates(admin: u16) -> Result<f64> {
    let text = http::get_text(admin, "admin", "/stats?filter=rds.local.update_success")?;
    text.lines()
        .find_map(|line| line.split_once("update_success: ")?.1.trim().parse().ok())
        .context("no rds.local.update_success")
}
