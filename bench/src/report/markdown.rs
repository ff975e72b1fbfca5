//! `README.md` of the results: what was measured on what, the tables, how to read them.

use std::fmt::Write;

use super::svg::CHARTS;
use crate::rows::{ROWS, Row};
use crate::sample::{Metric, Raw};

const HOW: &str = "\
## How it is measured

Each proxy runs one worker on one core; the load generator and the backend share the other. Every
row goes through the proxies in turn (A, B, C, D, A, B, ...), and the tables show the median of the
rounds. nuncio and Envoy read the same bootstrap: default stats, the router as the only HTTP filter,
codec auto-detection, default timeouts. nginx and HAProxy keep connections alive on both sides and
count nothing.

- **CPU** is processor time of the proxy process per request, from the scheduler's own account:
  the figure that a busy machine disturbs least. User time stands in brackets.
- **Rate and latency** are what the load generator saw with all connections always busy, so latency
  there is mostly queueing; the row at a fixed rate shows latency at a load that all can bear.
- **Route updates** come from a file that is replaced 100 times a second: 51 virtual hosts, one of
  them changed each time, applied on the same core as the traffic.
- **Memory** is the proportional set size.
- Load: wrk for HTTP/1.1, h2load for HTTP/2 and for the fixed rate, and small generators of our own
  for TCP messages, new connections and handshakes (X25519, AES-128-GCM, no resumption unless said so). Answers
  have 64 bytes. The upstream side is HTTP/1.1 keep-alive.
- Access logs: nuncio and Envoy write Envoy's default format, nginx a line of the same content with
  a 64 KB buffer, HAProxy its `httplog` line to a file descriptor (it has no file log).

Run it again with `just bench`, or `cargo run -p nuncio-bench --release -- run --help`.
";

/// The whole page.
pub fn markdown(raw: &Raw) -> String {
    let mut page = String::from("# nuncio beside Envoy, nginx and HAProxy\n\n");
    let machine = &raw.machine;
    let versions: Vec<String> = raw
        .proxies
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let _ = write!(
        page,
        "Measured {} UTC on {} x {}, {} GB, Linux {}; {} rounds of {} s.\n{}; load by {}.\n\n",
        machine.date,
        machine.cores,
        machine.cpu,
        machine.memory_gb,
        machine.kernel,
        raw.rounds,
        raw.seconds,
        versions.join(", "),
        machine.load_generators.join(", "),
    );
    for chart in CHARTS.iter().filter(|chart| chart.has_data(raw)) {
        let _ = write!(page, "![{}]({})\n\n", chart.title, chart.file);
    }
    page.push_str(&cpu_table(raw));
    page.push_str(&speed_table(raw));
    page.push_str(&memory_table(raw));
    page.push_str(&clusters_table(raw));
    page.push_str(HOW);
    page
}

fn cpu_table(raw: &Raw) -> String {
    let mut table = String::from("## CPU microseconds per request (user part)\n\n");
    let envoy = raw.proxies.iter().any(|(name, _)| name == "Envoy");
    let ratio = envoy && raw.proxies.iter().any(|(name, _)| name == "nuncio");
    head(&mut table, raw, if ratio { &["nuncio / Envoy"] } else { &[] });
    for row in measured(raw, Metric::CpuUs) {
        let _ = write!(table, "| {} |", row.title);
        for (proxy, _) in &raw.proxies {
            let cell = raw.median(row.name, proxy, Metric::CpuUs).map(|cpu| {
                let user = raw.median(row.name, proxy, Metric::UserUs).unwrap_or(0.0);
                let errors = raw.median(row.name, proxy, Metric::Errors).unwrap_or(0.0);
                let bad = if errors > 0.0 {
                    format!(", {errors:.0} errors")
                } else {
                    String::new()
                };
                format!("{} ({}){bad}", short(cpu), short(user))
            });
            cell_into(&mut table, cell);
        }
        if ratio {
            let of = |proxy| raw.median(row.name, proxy, Metric::CpuUs);
            let cell = of("nuncio").zip(of("Envoy")).map(|(n, e)| format!("**{:.2}**", n / e));
            cell_into(&mut table, cell);
        }
        table.push('\n');
    }
    table.push('\n');
    table
}

fn speed_table(raw: &Raw) -> String {
    let mut table = String::from("## Requests per second; latency p50 / p99 / p99.9 in milliseconds\n\n");
    head(&mut table, raw, &[]);
    for row in measured(raw, Metric::Rate) {
        let _ = write!(table, "| {} |", row.title);
        for (proxy, _) in &raw.proxies {
            let ms = |metric| raw.median(row.name, proxy, metric).map(|us| short(us / 1000.0));
            let cell = raw.median(row.name, proxy, Metric::Rate).map(|rate| {
                let parts = [Metric::P50Us, Metric::P99Us, Metric::P999Us].map(ms);
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                format!("{rate:.0}; {}", parts.join(" / "))
            });
            cell_into(&mut table, cell);
        }
        table.push('\n');
    }
    table.push('\n');
    table
}

fn memory_table(raw: &Raw) -> String {
    let at_start = measured(raw, Metric::PssMb).filter(|row| !row.is_clusters());
    let idle = measured(raw, Metric::PerConnectionKb);
    let rows: Vec<_> = at_start
        .map(|row| (row, Metric::PssMb, "MB"))
        .chain(idle.map(|row| (row, Metric::PerConnectionKb, "KB")))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = String::from("## Memory\n\n");
    head(&mut table, raw, &[]);
    for (row, metric, unit) in rows {
        let _ = write!(table, "| {} |", row.title);
        for (proxy, _) in &raw.proxies {
            let cell = raw.median(row.name, proxy, metric);
            cell_into(&mut table, cell.map(|value| format!("{} {unit}", short(value))));
        }
        table.push('\n');
    }
    table.push('\n');
    table
}

fn clusters_table(raw: &Raw) -> String {
    let row = "clusters-10k";
    let proxies: Vec<&(String, String)> = raw
        .proxies
        .iter()
        .filter(|(proxy, _)| raw.median(row, proxy, Metric::ReadyS).is_some())
        .collect();
    if proxies.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "## 10,000 clusters and 10,000 virtual hosts\n\n\
         | | ready | memory | one Prometheus scrape | its CPU | its text |\n|---|---|---|---|---|---|\n",
    );
    for (proxy, _) in proxies {
        let value = |metric| short(raw.median(row, proxy, metric).unwrap_or(0.0));
        let _ = writeln!(
            table,
            "| {proxy} | {} s | {} MB | {} s | {} s | {} MB |",
            value(Metric::ReadyS),
            value(Metric::PssMb),
            value(Metric::ScrapeS),
            value(Metric::ScrapeCpuS),
            value(Metric::ScrapeMb),
        );
    }
    table.push('\n');
    table
}

/// The rows that have such a figure.
fn measured(raw: &Raw, metric: Metric) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |row| {
        raw.proxies
            .iter()
            .any(|(proxy, _)| raw.median(row.name, proxy, metric).is_some())
    })
}

fn head(table: &mut String, raw: &Raw, more: &[&str]) {
    let mut names: Vec<&str> = raw.proxies.iter().map(|(name, _)| name.as_str()).collect();
    names.extend(more);
    let _ = writeln!(
        table,
        "| | {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
}

fn cell_into(table: &mut String, cell: Option<String>) {
    let _ = write!(table, " {} |", cell.unwrap_or_else(|| "-".into()));
}

/// Three significant figures or so.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 99.5 => format!("{v:.0}"),
        v if v >= 9.95 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
