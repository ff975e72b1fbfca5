//! Bar charts, written by hand: a panel for each row, a bar for each proxy, shorter is better.

use std::fmt::Write;

use super::markdown::short;
use crate::rows::ROWS;
use crate::sample::{Metric, Raw};

/// One chart: panels of the same kind of figure.
pub struct Chart {
    pub file: &'static str,
    pub title: &'static str,
    unit: &'static str,
    /// Row, metric, and a caption if the row's own title does not tell it.
    panels: &'static [(&'static str, Metric, Option<&'static str>)],
}

/// All charts, in the order of the page.
pub const CHARTS: &[Chart] = &[
    Chart {
        file: "cpu.svg",
        title: "CPU per request",
        unit: "microseconds of one core, less is better",
        panels: &[
            ("h1", Metric::CpuUs, None),
            ("h1-tls", Metric::CpuUs, None),
            ("h2", Metric::CpuUs, None),
            ("h2-tls", Metric::CpuUs, None),
            ("tcp", Metric::CpuUs, None),
            ("body-1m", Metric::CpuUs, None),
            ("handshake", Metric::CpuUs, None),
            ("resume", Metric::CpuUs, None),
        ],
    },
    Chart {
        file: "access-log.svg",
        title: "CPU per request with a file access log",
        unit: "microseconds of one core, less is better",
        panels: &[
            ("h1-log", Metric::CpuUs, Some("HTTP/1.1")),
            ("h1-tls-log", Metric::CpuUs, Some("HTTP/1.1 over TLS")),
            ("h2-log", Metric::CpuUs, Some("HTTP/2 cleartext")),
            ("h2-tls-log", Metric::CpuUs, Some("HTTP/2 over TLS")),
        ],
    },
    Chart {
        file: "latency.svg",
        title: "Latency at 70 % of Envoy's best rate",
        unit: "microseconds, HTTP/1.1, 64 connections, less is better",
        panels: &[
            ("h1-paced", Metric::P50Us, Some("median")),
            ("h1-paced", Metric::P99Us, Some("99th percentile")),
            (
                "h1-churn",
                Metric::P50Us,
                Some("median, with 100 route updates per second"),
            ),
            (
                "h1-churn",
                Metric::P99Us,
                Some("99th percentile, with 100 route updates per second"),
            ),
        ],
    },
    Chart {
        file: "memory.svg",
        title: "Memory",
        unit: "proportional set size, less is better",
        panels: &[
            ("memory-start", Metric::PssMb, Some("At start, MB")),
            ("memory-idle", Metric::PerConnectionKb, Some("Per idle connection, KB")),
            (
                "memory-idle-tls",
                Metric::PerConnectionKb,
                Some("Per idle TLS connection, KB"),
            ),
        ],
    },
    Chart {
        file: "clusters.svg",
        title: "10,000 clusters and virtual hosts",
        unit: "less is better",
        panels: &[
            ("clusters-10k", Metric::ReadyS, Some("First answer, seconds")),
            ("clusters-10k", Metric::PssMb, Some("Memory, MB")),
            ("clusters-10k", Metric::ScrapeS, Some("Prometheus scrape, seconds")),
        ],
    },
];

const WIDTH: f64 = 860.0;
const COLUMN: f64 = WIDTH / 2.0;
const MARGIN: f64 = 24.0;
const NAME: f64 = 62.0;
const BAR: f64 = 17.0;
const STEP: f64 = 23.0;
const HEADER: f64 = 70.0;
const CAPTION: f64 = 24.0;
const GAP: f64 = 22.0;

/// nuncio stands out; the others keep quiet colours of their own.
fn colour(proxy: &str) -> &'static str {
    match proxy {
        "nuncio" => "#e4572e",
        "Envoy" => "#8b6fc9",
        "nginx" => "#4f9d69",
        _ => "#4a8fc7",
    }
}

impl Chart {
    /// The rows it shows.
    #[cfg(test)]
    pub fn rows(&self) -> impl Iterator<Item = &'static str> {
        self.panels.iter().map(|panel| panel.0)
    }

    /// Whether any panel has a figure.
    pub fn has_data(&self, raw: &Raw) -> bool {
        self.panels.iter().any(|panel| !bars(raw, panel.0, panel.1).is_empty())
    }
}

fn bars<'a>(raw: &'a Raw, row: &str, metric: Metric) -> Vec<(&'a str, f64)> {
    raw.proxies
        .iter()
        .filter_map(|(proxy, _)| Some((proxy.as_str(), raw.median(row, proxy, metric)?)))
        .collect()
}

/// The picture, or nothing if there is nothing to show. Two panels stand side by side.
pub fn draw(chart: &Chart, raw: &Raw) -> Option<String> {
    let panels: Vec<(String, Vec<(&str, f64)>)> = chart
        .panels
        .iter()
        .map(|(row, metric, caption)| {
            let title = ROWS.iter().find(|r| r.name == *row).map_or(*row, |r| r.title);
            (caption.unwrap_or(title).to_string(), bars(raw, row, *metric))
        })
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let most = panels.iter().map(|(_, bars)| bars.len()).max()?;
    let panel_height = CAPTION + STEP * most as f64 + GAP;
    let height = HEADER + panel_height * panels.len().div_ceil(2) as f64;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif" role="img">
<title>{title}: {unit}</title>
<rect width="100%" height="100%" rx="10" fill="#ffffff" stroke="#e3e6ea"/>
<text x="{MARGIN}" y="33" font-size="18" font-weight="600" fill="#1d2430">{title}</text>
<text x="{MARGIN}" y="53" font-size="12.5" fill="#66707d">{unit}</text>
"##,
        title = chart.title,
        unit = chart.unit,
    );
    for (index, (caption, bars)) in panels.iter().enumerate() {
        let x = MARGIN + COLUMN * (index % 2) as f64;
        let y = HEADER + panel_height * (index / 2) as f64;
        panel(&mut svg, x, y, caption, bars);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn panel(svg: &mut String, x: f64, y: f64, caption: &str, bars: &[(&str, f64)]) {
    let _ = writeln!(
        svg,
        r##"<text x="{x}" y="{}" font-size="13" font-weight="600" fill="#333c48">{caption}</text>"##,
        y + 14.0,
    );
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    // Room for the name before a bar and the number after it.
    let room = COLUMN - MARGIN * 2.0 - NAME - 40.0;
    for (index, (proxy, value)) in bars.iter().enumerate() {
        let top = y + CAPTION + STEP * index as f64;
        let text = top + BAR - 4.5;
        let length = (value / longest * room).max(1.5);
        let weight = if *proxy == "nuncio" { "700" } else { "400" };
        let _ = writeln!(
            svg,
            r##"<text x="{name}" y="{text}" font-size="12" font-weight="{weight}" fill="#333c48" text-anchor="end">{proxy}</text><rect x="{bar}" y="{top}" width="{length:.1}" height="{BAR}" rx="3" fill="{colour}"/><text x="{after:.1}" y="{text}" font-size="12" font-weight="{weight}" fill="#333c48">{number}</text>"##,
            name = x + NAME - 8.0,
            bar = x + NAME,
            after = x + NAME + length + 6.0,
            colour = colour(proxy),
            number = short(*value),
        );
    }
}
