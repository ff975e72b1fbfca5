//! `/stats?format=json`: the same order as text, the histograms together at the end.

use bytes::Bytes;

use super::Output;
use super::number::{general, json as number};
use super::query::{BucketMode, Query};
use super::text::{Shown, each};
use crate::stats::histogram::{Bins, QUANTILES};
use crate::stats::store::Store;
use crate::stats::walk::Reading;

/// Prints the store as JSON, handing out pieces.
pub fn json(store: &Store, query: &Query, out: &mut dyn FnMut(Bytes)) {
    let mut out = Output::new(out);
    out.push("{\"stats\":[");
    let (mut first, mut histograms) = (true, false);
    each(store, query, &mut |name, reading| {
        if !std::mem::take(&mut first) {
            out.push(",");
        }
        match reading {
            Reading::Number(value) => {
                out.push("{\"name\":\"");
                push_escaped(&mut out, name);
                out.push("\",\"value\":");
                out.number(value);
                out.push("}");
            }
            Reading::Text(text) => {
                out.push(&format!("{{\"name\":{},\"value\":{}}}", quoted(name), quoted(&text)));
            }
            Reading::Histogram { unit, total, interval } => {
                if !std::mem::replace(&mut histograms, true) {
                    out.push(&histograms_begin(query.buckets));
                }
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
    if histograms {
        out.push(match query.buckets {
            BucketMode::Cumulative | BucketMode::Disjoint => "]}",
            _ => "]}}",
        });
    }
    out.push("]}");
    out.finish();
}

fn histograms_begin(mode: BucketMode) -> String {
    let percentiles = QUANTILES.map(|quantile| general(quantile * 100.0, 6)).join(",");
    match mode {
        BucketMode::Unset | BucketMode::Summary => {
            format!("{{\"histograms\":{{\"supported_quantiles\":[{percentiles}],\"computed_quantiles\":[")
        }
        BucketMode::Detailed => {
            format!("{{\"histograms\":{{\"supported_percentiles\":[{percentiles}],\"details\":[")
        }
        BucketMode::Cumulative | BucketMode::Disjoint => "{\"histograms\":[".into(),
    }
}

fn histogram(name: &str, shown: &Shown<'_>, mode: BucketMode) -> String {
    let name = quoted(name);
    match mode {
        BucketMode::Unset | BucketMode::Summary => format!("{{\"name\":{name},\"values\":{}}}", quantiles(shown)),
        BucketMode::Cumulative => format!("{{\"name\":{name},\"buckets\":{}}}", buckets(shown.cumulative())),
        BucketMode::Disjoint => format!("{{\"name\":{name},\"buckets\":{}}}", buckets(shown.disjoint())),
        BucketMode::Detailed => format!(
            "{{\"name\":{name},\"totals\":{},\"intervals\":{},\"percentiles\":{}}}",
            bins(shown.total),
            bins(shown.interval),
            quantiles(shown)
        ),
    }
}

fn quantiles(shown: &Shown<'_>) -> String {
    array(
        shown
            .quantiles()
            .into_iter()
            .map(|(interval, total)| format!("{{\"cumulative\":{},\"interval\":{}}}", number(total), number(interval))),
    )
}

fn buckets(rows: Vec<(f64, u64, u64)>) -> String {
    array(rows.into_iter().map(|(bound, interval, total)| {
        format!(
            "{{\"upper_bound\":{},\"interval\":{interval},\"cumulative\":{total}}}",
            number(bound)
        )
    }))
}

fn bins(bins: &Bins) -> String {
    array(bins.iter().map(|(left, width, count)| {
        format!(
            "{{\"lower_bound\":{},\"width\":{},\"count\":{count}}}",
            number(left),
            number(width)
        )
    }))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Almost no name needs escaping; those that do go the long way.
fn push_escaped(out: &mut Output<'_>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(text);
    } else {
        let quoted = quoted(text);
        out.push(&quoted[1..quoted.len() - 1]);
    }
}
