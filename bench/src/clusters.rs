//! Many clusters and virtual hosts: how soon the last one answers, how much memory they take, and
//! what one Prometheus scrape of them costs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::{self, Process};
use crate::proxies::{Ports, Proxy, Setup, many_clusters};
use crate::sample::Metric;
use crate::{http, memory};

/// A proxy that needs longer than this has lost.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Starts a process for it, measures, ends it.
pub fn measure(proxy: &Proxy, setup: &Setup, count: usize) -> Result<BTreeMap<Metric, f64>> {
    let ports = Ports::free(proxy.kind)?;
    let config = setup.scratch.join("clusters.yaml");
    let text = many_clusters(count, ports.http1, ports.admin, setup.http_backend);
    std::fs::write(&config, text)?;
    let command = proxy.envoy_command(setup.core, &config);
    let log = setup.scratch.join(format!("{}-clusters.out", proxy.kind.name()));
    let mut process = Process::start(proxy.kind.name(), command, &log)?;
    let last = format!("host-{}.example", count - 1);
    let ready = process::wait_until(&mut process, READY_LIMIT, || http::get(ports.http1, &last, "/").is_ok())?;
    std::thread::sleep(memory::SETTLE);
    let pss = process.pss_kb()? / 1024.0;
    let before = process.cpu()?;
    let start = Instant::now();
    let bytes = http::get(ports.admin, "admin", "/stats/prometheus")?;
    let scrape = start.elapsed().as_secs_f64();
    let after = process.cpu()?;
    Ok(BTreeMap::from([
        (Metric::ReadyS, ready.as_secs_f64()),
        (Metric::PssMb, pss),
        (Metric::ScrapeS, scrape),
        (Metric::ScrapeCpuS, after.total - before.total),
        (Metric::ScrapeMb, bytes as f64 / 1e6),
    ]))
}
