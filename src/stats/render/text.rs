//! `/stats` as text: `name: value`, sorted by name; text readouts, then counters and gauges, then histograms.

use bytes::Bytes;

use super::Output;
use super::merge::{self, Order, Source};
use super::number::{general, shortest};
use super::query::{BucketMode, Query, TypeFilter};
use crate::stats::block::Kind;
use crate::stats::histogram::{Bins, QUANTILES, Summary, Unit};
use crate::stats::store::Store;
use crate::stats::walk::{ListSource, Phase, Reading, contents};

/// Prints the store as text, handing out pieces.
pub fn text(store: &Store, query: &Query, out: &mut dyn FnMut(Bytes)) {
    let mut out = Output::new(out);
    each(store, query, &mut |name, reading| {
        match reading {
            Reading::Number(value) => {
                out.push(name);
                out.push(": ");
                out.number(value);
                out.push("\n");
            }
            Reading::Text(text) => out.push(&format!("{name}: \"{text}\"\n")),
            Reading::Histogram { unit, total, interval } => {
                let shown = Shown {
                    unit,
                    total: &total,
                    interval: &interval,
                    bounds: store.config().buckets(|| name.to_owned()),
                };
                out.push(&histogram(name, &shown, query.buckets));
            }
        }
        out.entry_done();
    });
    out.finish();
}

/// Calls `visit` with everything the query asks for, in the order of `/stats`.
pub(super) fn each(store: &Store, query: &Query, visit: &mut dyn FnMut(&str, Reading)) {
    let contents = contents(store);
    for phase in [Phase::TextReadouts, Phase::Numbers, Phase::Histograms] {
        if !phase_asked(phase, query.types) {
            continue;
        }
        let wanted = |kind: Kind| match query.types {
            TypeFilter::Counters => kind == Kind::Counter,
            TypeFilter::Gauges => kind == Kind::Gauge,
            _ => true,
        };
        let sources = contents.sources(phase, query.used_only);
        merge::walk(&sources, Order::Bytes, |name, places| {
            if !query.admits(name) {
                return;
            }
            let mut merged: Option<(Kind, Reading)> = None;
            for &(source, position) in places {
                let Some(stat) = sources[source].stat(position) else {
                    continue;
                };
                let shown = wanted(stat.kind()) && query.admits_hidden(stat.hidden()) && stat.listed();
                if !shown || (query.used_only && !(stat.used() && stat.flushed())) {
                    continue;
                }
                let mut reading = stat.read();
                // Two scopes may spell the same name; of two kinds, the later is shown.
                if let (Reading::Number(sum), Some((kind, Reading::Number(other)))) = (&mut reading, &merged)
                    && *kind == stat.kind()
                {
                    *sum = sum.wrapping_add(*other);
                }
                merged = Some((stat.kind(), reading));
            }
            if let Some((_, reading)) = merged {
                visit(name, reading);
            }
        });
    }
}

impl Source for ListSource<'_> {
    fn prefix(&self) -> &str {
        ListSource::prefix(self)
    }

    fn name(&self, position: usize) -> Option<&str> {
        self.stat(position).map(|stat| stat.name())
    }
}

fn phase_asked(phase: Phase, types: TypeFilter) -> bool {
    match types {
        TypeFilter::All => true,
        TypeFilter::Counters | TypeFilter::Gauges => phase == Phase::Numbers,
        TypeFilter::Histograms => phase == Phase::Histograms,
        TypeFilter::TextReadouts => phase == Phase::TextReadouts,
    }
}

/// A histogram and how it is to be shown.
pub(super) struct Shown<'a> {
    pub(super) unit: Unit,
    pub(super) total: &'a Bins,
    pub(super) interval: &'a Bins,
    pub(super) bounds: &'a [f64],
}

impl Shown<'_> {
    /// Counts at or below each bound: interval and total.
    pub(super) fn cumulative(&self) -> Vec<(f64, u64, u64)> {
        let (interval, total) = (
            Summary::new(self.interval, self.unit),
            Summary::new(self.total, self.unit),
        );
        self.bounds
            .iter()
            .map(|&bound| (bound, interval.count_below(bound), total.count_below(bound)))
            .collect()
    }

    /// Counts between a bound and the one before.
    pub(super) fn disjoint(&self) -> Vec<(f64, u64, u64)> {
        let (mut interval_before, mut total_before) = (0, 0);
        let difference = |(bound, interval, total): (f64, u64, u64)| {
            let row = (
                bound,
                interval.saturating_sub(interval_before),
                total.saturating_sub(total_before),
            );
            (interval_before, total_before) = (interval, total);
            row
        };
        self.cumulative().into_iter().map(difference).collect()
    }

    /// Quantiles of the interval and of the total.
    pub(super) fn quantiles(&self) -> Vec<(f64, f64)> {
        let interval = Summary::new(self.interval, self.unit).quantiles();
        interval
            .into_iter()
            .zip(Summary::new(self.total, self.unit).quantiles())
            .collect()
    }
}

fn histogram(name: &str, shown: &Shown<'_>, mode: BucketMode) -> String {
    if shown.total.is_empty() {
        return format!("{name}: No recorded values\n");
    }
    let quantiles = || {
        let each = QUANTILES.iter().zip(shown.quantiles());
        let cells = each.map(|(quantile, (interval, total))| {
            format!(
                "P{}({},{})",
                shortest(quantile * 100.0),
                shortest(interval),
                shortest(total)
            )
        });
        cells.collect::<Vec<_>>().join(" ")
    };
    let buckets = |rows: Vec<(f64, u64, u64)>| {
        let cells = rows
            .into_iter()
            .map(|(bound, interval, total)| format!("B{}({interval},{total})", general(bound, 6)));
        cells.collect::<Vec<_>>().join(" ")
    };
    let bins = |bins: &Bins| {
        let cells = bins
            .iter()
            .map(|(left, width, count)| format!("{},{}:{count}", general(left, 6), general(width, 6)));
        cells.collect::<Vec<_>>().join(", ")
    };
    match mode {
        BucketMode::Unset | BucketMode::Summary => format!("{name}: {}\n", quantiles()),
        BucketMode::Cumulative => format!("{name}: {}\n", buckets(shown.cumulative())),
        BucketMode::Disjoint => format!("{name}: {}\n", buckets(shown.disjoint())),
        BucketMode::Detailed => format!(
            "{name}:\n  totals={}\n  intervals={}\n  summary={}\n",
            bins(shown.total),
            bins(shown.interval),
            quantiles()
        ),
    }
}
