//! `/stats/prometheus`: Prometheus' text exposition format, as Envoy writes it.
//!
//! `metrics-exporter-prometheus` formats text too, but with other rules: it lets colons stand in names, prints a blank
//! line after each family, leaves out the braces of a metric without labels, and wants all series in maps of its own
//! before it prints one. Here ten thousand clusters are a hundred names times ten thousand prefixes: the blocks of
//! one type whose prefixes leave the same extracted prefix ("cluster.") form a [group](sources::Group); names are made
//! per group, labels per scope, and nothing per series but its line.

mod sources;

use std::fmt::Write;

use bytes::Bytes;

use self::sources::{Family, Prefix, PromSource, Row, escaped, sanitized, sources};
use super::Output;
use super::merge::{self, Order};
use super::number::{general, shortest};
use super::query::{BucketMode, Query};
use crate::stats::cell::GaugeValue;
use crate::stats::histogram::{QUANTILES, Summary};
use crate::stats::store::Store;
use crate::stats::walk::{Stat, contents};

/// Prints the store in Prometheus' text format, handing out pieces.
pub fn prometheus(store: &Store, query: &Query, out: &mut dyn FnMut(Bytes)) {
    let mut contents = contents(store);
    contents
        .0
        .sort_by(|a, b| Order::Tokens.compare(a.scope.prefix(), b.scope.prefix()));
    let prefixes: Vec<Prefix> = contents
        .0
        .iter()
        .map(|contents| Prefix::new(store, &contents.scope))
        .collect();
    let namespaces = store.namespaces();
    let mut out = Output::new(out);
    for family in [Family::Counter, Family::Gauge, Family::TextReadout, Family::Histogram] {
        if family == Family::TextReadout && !query.text_readouts {
            continue;
        }
        let sources = sources(store, family, &contents, &prefixes);
        merge::walk(&sources, Order::Tokens, |name, places| {
            let Some(name) = metric_name(name, &namespaces) else {
                return;
            };
            let mut writer = Writer::new(store, query, family, &name, &mut out);
            match places {
                &[(source, position)] if let PromSource::Group(group) = &sources[source] => {
                    for member in &group.members {
                        let stat = Stat::Field {
                            slot: member.slot,
                            index: group.fields[position].index,
                        };
                        let known = member
                            .values
                            .as_ref()
                            .map_or_else(Default::default, |values| values[position]);
                        writer.series(
                            member.scope.prefix(),
                            &stat,
                            Some(known),
                            &group.labels(member, position),
                        );
                    }
                }
                places => {
                    let mut rows: Vec<Row<'_>> = Vec::new();
                    places
                        .iter()
                        .for_each(|&(source, position)| sources[source].rows(position, &mut rows));
                    rows.sort_by(|a, b| Order::Tokens.compare(&a.full, &b.full));
                    for row in &rows {
                        let prefix = &row.full[..row.full.len() - row.stat.name().len()];
                        writer.series(prefix, &row.stat, None, &row.labels);
                    }
                }
            }
        });
    }
    out.finish();
}

/// Writes the lines of one metric.
struct Writer<'w, 'o> {
    store: &'w Store,
    query: &'w Query,
    family: Family,
    name: &'w str,
    begun: bool,
    /// What stands between the labels and the count of each bucket, made when the first histogram is written.
    bounds: Vec<(f64, String)>,
    out: &'w mut Output<'o>,
}

impl<'w, 'o> Writer<'w, 'o> {
    fn new(store: &'w Store, query: &'w Query, family: Family, name: &'w str, out: &'w mut Output<'o>) -> Self {
        Self {
            store,
            query,
            family,
            name,
            begun: false,
            bounds: Vec::new(),
            out,
        }
    }

    /// Writes one series, if the query asks for it. `known` is the value if it was read already; for a histogram
    /// only whether there can be any.
    fn series(&mut self, prefix: &str, stat: &Stat<'_>, known: Option<GaugeValue>, labels: &str) {
        let full = || [prefix, stat.name()].concat();
        let used = || known.map_or_else(|| stat.used(), |known| known.used);
        if !stat.listed_if(used)
            || !self.query.admits_hidden(stat.hidden())
            || (self.query.used_only && !(used() && stat.flushed()))
            || (self.query.filter.is_some() && !self.query.admits(&full()))
        {
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.begin();
        }
        match self.family {
            Family::Counter | Family::Gauge => {
                self.line("", &[labels], known.map_or_else(|| stat.number(), |known| known.value));
            }
            Family::TextReadout => {
                let (text, comma) = (escaped(&stat.text()), if labels.is_empty() { "" } else { "," });
                self.line("", &[labels, comma, "text_value=\"", &text, "\""], 0);
            }
            Family::Histogram => {
                let unused = known.is_some_and(|known| !known.used);
                let (total, interval) = if unused { Default::default() } else { stat.histogram() };
                if self.query.buckets == BucketMode::Summary {
                    self.summary(labels, &Summary::new(&interval, stat.unit()));
                } else {
                    self.buckets(
                        labels,
                        &Summary::new(&total, stat.unit()),
                        self.store.config().buckets(full),
                    );
                }
            }
        }
        self.out.entry_done();
    }

    fn begin(&mut self) {
        let kind = match self.family {
            Family::Counter => "counter",
            Family::Gauge | Family::TextReadout => "gauge",
            Family::Histogram if self.query.buckets == BucketMode::Summary => "summary",
            Family::Histogram => "histogram",
        };
        self.out.push(&format!("# TYPE {} {kind}\n", self.name));
    }

    fn line(&mut self, suffix: &str, labels: &[&str], value: u64) {
        self.out.push(self.name);
        self.out.push(suffix);
        self.out.push("{");
        labels.iter().for_each(|part| self.out.push(part));
        self.out.push("} ");
        self.out.number(value);
        self.out.push("\n");
    }

    fn buckets(&mut self, labels: &str, summary: &Summary<'_>, bounds: &[f64]) {
        let comma = if labels.is_empty() { "" } else { "," };
        if !self.bounds.iter().map(|(bound, _)| bound).eq(bounds) {
            self.bounds = bounds
                .iter()
                .map(|&bound| (bound, format!("le=\"{}\"", general(bound, 32))))
                .collect();
        }
        let prepared = std::mem::take(&mut self.bounds);
        for (bound, le) in &prepared {
            self.line("_bucket", &[labels, comma, le], summary.count_below(*bound));
        }
        self.bounds = prepared;
        self.line("_bucket", &[labels, comma, "le=\"+Inf\""], summary.count());
        self.sum_and_count(labels, summary);
    }

    fn summary(&mut self, labels: &str, summary: &Summary<'_>) {
        let (name, comma) = (self.name, if labels.is_empty() { "" } else { "," });
        let mut text = String::new();
        for (quantile, value) in QUANTILES.iter().zip(summary.quantiles()) {
            let (quantile, value) = (shortest(*quantile), general(value, 32));
            let _ = writeln!(text, "{name}{{{labels}{comma}quantile=\"{quantile}\"}} {value}");
        }
        self.out.push(&text);
        self.sum_and_count(labels, summary);
    }

    fn sum_and_count(&mut self, labels: &str, summary: &Summary<'_>) {
        let count = summary.count();
        let sum = if count == 0 {
            "0".to_owned()
        } else {
            general(summary.sum(), 32)
        };
        for part in [self.name, "_sum{", labels, "} ", &sum, "\n"] {
            self.out.push(part);
        }
        self.line("_count", &[labels], count);
    }
}

/// The metric's name: `envoy_` and the extracted name, or what follows a registered namespace.
fn metric_name(extracted: &str, namespaces: &[Box<str>]) -> Option<String> {
    match namespaces
        .iter()
        .find_map(|namespace| extracted.strip_prefix(&**namespace))
    {
        Some(own) => {
            Some(sanitized(own)).filter(|name| !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty())
        }
        None => Some(format!("envoy_{}", sanitized(extracted))),
    }
}
