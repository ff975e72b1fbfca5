//! One measured figure set: a row, a proxy, a round.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// What a number means. The unit is part of the meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Processor microseconds of the proxy per request (or message, or handshake).
    CpuUs,
    /// The part of `CpuUs` spent in user space.
    UserUs,
    /// Requests per second that the load generator saw answered.
    Rate,
    /// Median latency in microseconds, as the load generator saw it.
    P50Us,
    /// 99th percentile of the latency in microseconds.
    P99Us,
    /// 99.9th percentile of the latency in microseconds.
    P999Us,
    /// Answers that were not 200, and connections that broke.
    Errors,
    /// Proportional set size in MB.
    PssMb,
    /// Proportional set size per connection in KB.
    PerConnectionKb,
    /// Seconds from the start of the process to the first good answer.
    ReadyS,
    /// Seconds one Prometheus scrape takes.
    ScrapeS,
    /// Processor seconds one Prometheus scrape takes.
    ScrapeCpuS,
    /// Configuration updates per second that the proxy applied.
    UpdatesPerSecond,
    /// MB of text in one Prometheus scrape.
    ScrapeMb,
}

/// The figures of one proxy in one round of one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub row: String,
    pub proxy: String,
    pub round: usize,
    pub values: BTreeMap<Metric, f64>,
}

/// Everything a report is made from; kept beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Raw {
    pub machine: Machine,
    /// Proxy name and version, in the order of the columns.
    pub proxies: Vec<(String, String)>,
    pub rounds: usize,
    pub seconds: u64,
    pub samples: Vec<Sample>,
}

impl Raw {
    /// The median over the rounds, if that proxy was measured in that row.
    pub fn median(&self, row: &str, proxy: &str, metric: Metric) -> Option<f64> {
        let mut values: Vec<f64> = self
            .samples
            .iter()
            .filter(|sample| sample.row == row && sample.proxy == proxy)
            .filter_map(|sample| sample.values.get(&metric).copied())
            .collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => None,
            n if n % 2 == 1 => values.get(n / 2).copied(),
            n => Some((values.get(n / 2 - 1)? + values.get(n / 2)?) / 2.0),
        }
    }
}

#[cfg(test)]
mod tests;
