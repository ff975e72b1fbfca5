//! `/stats/prometheus`: Prometheus' text exposition format, as Envoy writes it.
//!
//! `metrics-exporter-prometheus` formats text too, but with other rules: it lets colons stand in names, prints a blank
//! line after each family, leaves out the braces of a metric without labels, and wants all series in maps of its own
//! before it prints one. Here ten thousand clusters are a hundred names times ten thousand prefixes: the blocks of
//! one type whose prefixes leave the same extracted prefix ("cluster.") form a [`Group`], names are made per group,
//! labels per scope, and nothing per series but its line.

use std::collections::HashMap;
use std::fmt::Write;

use bytes::Bytes;

use super::Output;
use super::merge::{self, Order, Source};
use super::number::{general, shortest};
use super::query::{BucketMode, Query};
use crate::stats::block::{Kind, StatDesc};
use crate::stats::histogram::{QUANTILES, Summary};
use crate::stats::scope::{BlockSlot, ScopeInner};
use crate::stats::store::Store;
use crate::stats::tags::{Extracted, Extractors, ScopeTags, Tag};
use crate::stats::walk::{Contents, ScopeContents, Stat, contents};

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
        merge::walk(&sources, Order::Tokens, &mut |name, places| {
            let Some(name) = metric_name(name, &namespaces) else {
                return;
            };
            let mut writer = Writer::new(store, query, family, &name, &mut out);
            match places {
                &[(source, position)] if let Some((group, index)) = sources[source].group(position) => {
                    for member in &group.members {
                        let stat = Stat::Field {
                            slot: member.slot,
                            index,
                        };
                        writer.series(member.scope.prefix(), &stat, member.untouched, &member.prefix.labels);
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
                        writer.series(prefix, &row.stat, false, row.labels);
                    }
                }
            }
        });
    }
    out.finish();
}

/// What is printed together; the order is Envoy's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Counter,
    Gauge,
    TextReadout,
    Histogram,
}

impl Family {
    fn holds(self, kind: Kind) -> bool {
        self == match kind {
            Kind::Counter => Family::Counter,
            Kind::Gauge => Family::Gauge,
            Kind::TextReadout => Family::TextReadout,
            Kind::Histogram(_) => Family::Histogram,
        }
    }
}

/// A scope's prefix as Prometheus sees it.
struct Prefix {
    /// What it is extracted to, for names that are not special; none if every name is.
    extracted: Option<String>,
    labels: String,
}

impl Prefix {
    fn new(store: &Store, scope: &ScopeInner) -> Self {
        let given = scope
            .explicit_tags()
            .map(|tags| (tags.extracted_name.to_string(), labels(&tags.tags)));
        let common = || ScopeTags::new(&store.config().extractors, scope.prefix()).common;
        match given.or_else(|| common().map(|common| (common.name, labels(&common.tags)))) {
            Some((extracted, labels)) => Self {
                extracted: Some(extracted),
                labels,
            },
            None => Self {
                extracted: None,
                labels: String::new(),
            },
        }
    }
}

/// Blocks of one type whose prefixes are extracted to the same.
struct Group<'a> {
    extracted: &'a str,
    descs: &'static [StatDesc],
    /// Fields of the family that are not special, in the order of their names.
    order: Vec<usize>,
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    scope: &'a ScopeInner,
    slot: &'a BlockSlot,
    prefix: &'a Prefix,
    /// Everything in it is zero: most clusters of a large configuration, and reading them would miss the cache.
    untouched: bool,
}

/// A statistic that had to be looked at by its full name.
struct Single<'a> {
    extracted: String,
    full: String,
    labels: String,
    stat: Stat<'a>,
}

struct Row<'a> {
    full: String,
    labels: &'a str,
    stat: Stat<'a>,
}

enum PromSource<'a> {
    Group(Group<'a>),
    Singles(Vec<Single<'a>>),
}

impl<'a> PromSource<'a> {
    fn group(&self, position: usize) -> Option<(&Group<'a>, usize)> {
        match self {
            PromSource::Group(group) => group.order.get(position).map(|&index| (group, index)),
            PromSource::Singles(_) => None,
        }
    }

    fn rows<'s>(&'s self, position: usize, rows: &mut Vec<Row<'s>>) {
        match self {
            PromSource::Group(group) => {
                let index = group.order[position];
                rows.extend(group.members.iter().map(|member| Row {
                    full: [member.scope.prefix(), group.descs[index].name].concat(),
                    labels: &member.prefix.labels,
                    stat: Stat::Field {
                        slot: member.slot,
                        index,
                    },
                }));
            }
            PromSource::Singles(singles) => rows.extend(singles.get(position).map(|single| Row {
                full: single.full.clone(),
                labels: &single.labels,
                stat: single.stat,
            })),
        }
    }
}

impl Source for PromSource<'_> {
    fn prefix(&self) -> &str {
        match self {
            PromSource::Group(group) => group.extracted,
            PromSource::Singles(_) => "",
        }
    }

    fn name(&self, position: usize) -> Option<&str> {
        match self {
            PromSource::Group(group) => group.order.get(position).map(|&index| group.descs[index].name),
            PromSource::Singles(singles) => singles.get(position).map(|single| single.extracted.as_str()),
        }
    }
}

/// Sorts everything of a family into groups and singles.
fn sources<'a>(store: &Store, family: Family, contents: &'a Contents, prefixes: &'a [Prefix]) -> Vec<PromSource<'a>> {
    let extractors = &store.config().extractors;
    let mut fields: HashMap<*const StatDesc, Fields> = HashMap::new();
    let mut groups: HashMap<(&str, *const StatDesc), Group<'a>> = HashMap::new();
    let mut singles = Vec::new();
    for (contents, prefix) in contents.0.iter().zip(prefixes) {
        let ScopeContents { scope, blocks, .. } = contents;
        for slot in blocks {
            let descs = slot.block.descs();
            let fields = fields
                .entry(descs.as_ptr())
                .or_insert_with(|| Fields::new(extractors, family, descs));
            let field = |&index: &usize| single(extractors, scope, prefix, Stat::Field { slot, index });
            singles.extend(fields.special.iter().map(field));
            let Some(extracted) = &prefix.extracted else {
                singles.extend(fields.plain.iter().map(field));
                continue;
            };
            if !fields.plain.is_empty() {
                let group = groups.entry((extracted, descs.as_ptr())).or_insert_with(|| Group {
                    extracted,
                    descs,
                    order: fields.plain.clone(),
                    members: Vec::new(),
                });
                let untouched = slot.block.is_untouched();
                group.members.push(Member {
                    scope,
                    slot,
                    prefix,
                    untouched,
                });
            }
        }
        let others = contents.without_blocks().filter(|stat| family.holds(stat.kind()));
        singles.extend(others.map(|stat| single(extractors, scope, prefix, stat)));
    }
    singles.sort_by(|a, b| Order::Tokens.compare(&a.extracted, &b.extracted));
    let groups = groups.into_values().map(PromSource::Group);
    groups.chain([PromSource::Singles(singles)]).collect()
}

/// Which fields of a block type can be named by group.
struct Fields {
    plain: Vec<usize>,
    special: Vec<usize>,
}

impl Fields {
    fn new(extractors: &Extractors, family: Family, descs: &[StatDesc]) -> Self {
        let of_family = (0..descs.len()).filter(|&index| family.holds(descs[index].kind));
        let (special, mut plain): (Vec<_>, Vec<_>) =
            of_family.partition(|&index| extractors.is_special(descs[index].name));
        plain.sort_by(|&a, &b| Order::Tokens.compare(descs[a].name, descs[b].name));
        Self { plain, special }
    }
}

fn single<'a>(extractors: &Extractors, scope: &ScopeInner, prefix: &Prefix, stat: Stat<'a>) -> Single<'a> {
    let name = stat.name();
    let full = [scope.prefix(), name].concat();
    let given = match stat {
        Stat::Dynamic { stat, .. } => stat.tags.as_ref(),
        _ => None,
    };
    if let Some(tags) = given {
        return Single {
            extracted: tags.extracted_name.to_string(),
            full,
            labels: labels(&tags.tags),
            stat,
        };
    }
    match &prefix.extracted {
        Some(extracted) if scope.explicit_tags().is_some() || !extractors.is_special(name) => {
            // Below a prefix with given tags, only what the field itself says is extracted.
            let Extracted { name, tags } = match scope.explicit_tags() {
                Some(_) => extractors.extract(name),
                None => Extracted {
                    name: name.to_owned(),
                    tags: Vec::new(),
                },
            };
            let separator = if tags.is_empty() || prefix.labels.is_empty() {
                ""
            } else {
                ","
            };
            let labels = [&labels(&tags), separator, &prefix.labels].concat();
            Single {
                extracted: [extracted, name.as_str()].concat(),
                full,
                labels,
                stat,
            }
        }
        _ => {
            let Extracted { name, tags } = extractors.extract(&full);
            Single {
                extracted: name,
                full,
                labels: labels(&tags),
                stat,
            }
        }
    }
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

    /// Writes one series, if the query asks for it.
    fn series(&mut self, prefix: &str, stat: &Stat<'_>, untouched: bool, labels: &str) {
        let full = || [prefix, stat.name()].concat();
        if !(if untouched {
            stat.listed_untouched()
        } else {
            stat.listed()
        }) || !self.query.admits_hidden(stat.hidden())
            || (self.query.used_only && (untouched || !stat.used()))
            || (self.query.filter.is_some() && !self.query.admits(&full()))
        {
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.begin();
        }
        if self.family == Family::Histogram {
            let (total, interval) = if untouched {
                Default::default()
            } else {
                stat.histogram()
            };
            let unit = stat.unit();
            if self.query.buckets == BucketMode::Summary {
                self.summary(labels, &Summary::new(&interval, unit));
            } else {
                self.buckets(labels, &Summary::new(&total, unit), self.store.config().buckets(full));
            }
        } else if self.family == Family::TextReadout {
            let (text, comma) = (escaped(&stat.text()), if labels.is_empty() { "" } else { "," });
            self.line("", &[labels, comma, "text_value=\"", &text, "\""], 0);
        } else {
            self.line("", &[labels], if untouched { 0 } else { stat.number() });
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

fn labels(tags: &[Tag]) -> String {
    let mut out = String::new();
    for (index, tag) in tags.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{}=\"{}\"", sanitized(&tag.name), escaped(&tag.value));
    }
    out
}

fn sanitized(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
        .collect()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
