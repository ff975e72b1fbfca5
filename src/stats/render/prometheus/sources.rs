//! What Prometheus is shown, by extracted name: groups of blocks where names and labels fall apart into a prefix's
//! and a field's share, singles where they do not.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::rc::Rc;

use super::super::merge::{Order, Source};
use crate::stats::block::{Kind, StatDesc};
use crate::stats::cell::GaugeValue;
use crate::stats::scope::{BlockSlot, ScopeInner};
use crate::stats::store::Store;
use crate::stats::tags::{Extracted, Extractors, FieldTags, ScopeTags, Tag};
use crate::stats::walk::{Contents, ScopeContents, Stat};

/// What is printed together; the order is Envoy's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
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
pub(super) struct Prefix {
    /// What it is extracted to, for names that are not special; none if every name is.
    extracted: Option<String>,
    labels: String,
}

impl Prefix {
    pub(super) fn new(store: &Store, scope: &ScopeInner) -> Self {
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
pub(super) struct Group<'a> {
    pub(super) extracted: &'a str,
    /// In the order of their names.
    pub(super) fields: Rc<[Field]>,
    pub(super) members: Vec<Member<'a>>,
}

/// A field of the family whose tags depend on prefix and field apart.
pub(super) struct Field {
    pub(super) index: usize,
    /// What is left of its name.
    name: String,
    labels: String,
}

pub(super) struct Member<'a> {
    pub(super) scope: &'a ScopeInner,
    pub(super) slot: &'a BlockSlot,
    prefix: &'a Prefix,
    /// The group's fields, read in one go: field by field over ten thousand blocks would miss the cache each time.
    /// None if nothing was ever written.
    pub(super) values: Option<Box<[GaugeValue]>>,
}

impl Group<'_> {
    pub(super) fn labels<'m>(&self, member: &'m Member<'_>, position: usize) -> Cow<'m, str> {
        joined(&self.fields[position].labels, &member.prefix.labels)
    }
}

/// A statistic that is not a field of a group.
pub(super) struct Single<'a> {
    extracted: String,
    full: String,
    labels: String,
    stat: Stat<'a>,
}

pub(super) struct Row<'a> {
    pub(super) full: Cow<'a, str>,
    pub(super) labels: Cow<'a, str>,
    pub(super) stat: Stat<'a>,
}

pub(super) enum PromSource<'a> {
    Group(Group<'a>),
    Singles(Vec<Single<'a>>),
}

impl PromSource<'_> {
    pub(super) fn rows<'s>(&'s self, position: usize, rows: &mut Vec<Row<'s>>) {
        match self {
            PromSource::Group(group) => rows.extend(group.members.iter().map(|member| {
                let stat = Stat::Field {
                    slot: member.slot,
                    index: group.fields[position].index,
                };
                Row {
                    full: [member.scope.prefix(), stat.name()].concat().into(),
                    labels: group.labels(member, position),
                    stat,
                }
            })),
            PromSource::Singles(singles) => rows.extend(singles.get(position).map(|single| Row {
                full: single.full.as_str().into(),
                labels: single.labels.as_str().into(),
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
            PromSource::Group(group) => group.fields.get(position).map(|field| field.name.as_str()),
            PromSource::Singles(singles) => singles.get(position).map(|single| single.extracted.as_str()),
        }
    }
}

/// Sorts everything of a family into groups and singles.
pub(super) fn sources<'a>(
    store: &Store,
    family: Family,
    contents: &'a Contents,
    prefixes: &'a [Prefix],
) -> Vec<PromSource<'a>> {
    let mut names = Names {
        extractors: &store.config().extractors,
        known: HashMap::new(),
    };
    let mut fields: HashMap<*const StatDesc, (Rc<[Field]>, Vec<usize>)> = HashMap::new();
    let mut groups: HashMap<(&str, *const StatDesc), Group<'a>> = HashMap::new();
    let mut singles = Vec::new();
    for (contents, prefix) in contents.0.iter().zip(prefixes) {
        let ScopeContents { scope, blocks, .. } = contents;
        for slot in blocks {
            let descs = slot.block.descs();
            let (plain, whole) = fields
                .entry(descs.as_ptr())
                .or_insert_with(|| names.fields(family, descs));
            let mut single = |index| singles.push(names.single(scope, prefix, Stat::Field { slot, index }));
            let Some(extracted) = &prefix.extracted else {
                plain.iter().for_each(|field| single(field.index));
                whole.iter().for_each(|&index| single(index));
                continue;
            };
            whole.iter().for_each(|&index| single(index));
            if !plain.is_empty() {
                let touched = !slot.block.is_untouched();
                let values = || plain.iter().map(|field| slot.block.number(field.index)).collect();
                let values = touched.then(values);
                let group = groups.entry((extracted, descs.as_ptr())).or_insert_with(|| Group {
                    extracted,
                    fields: plain.clone(),
                    members: Vec::new(),
                });
                group.members.push(Member {
                    scope,
                    slot,
                    prefix,
                    values,
                });
            }
        }
        let others = contents.without_blocks().filter(|stat| family.holds(stat.kind()));
        singles.extend(others.map(|stat| names.single(scope, prefix, stat)));
    }
    singles.sort_by(|a, b| Order::Tokens.compare(&a.extracted, &b.extracted));
    let groups = groups.into_values().map(PromSource::Group);
    groups.chain([PromSource::Singles(singles)]).collect()
}

/// What is known of names below prefixes; the same few come again and again.
struct Names<'a> {
    extractors: &'a Extractors,
    known: HashMap<Box<str>, Option<(String, String)>>,
}

impl Names<'_> {
    /// What is left of a name below a prefix, and its own labels; `None` if that depends on the prefix.
    fn own(&mut self, name: &str) -> Option<&(String, String)> {
        if !self.known.contains_key(name) {
            let own = match self.extractors.classify(name) {
                FieldTags::Own(own) => Some((own.name, labels(&own.tags))),
                FieldTags::Whole => None,
            };
            self.known.insert(name.into(), own);
        }
        self.known.get(name).and_then(Option::as_ref)
    }

    /// The fields of a family: those whose tags depend on prefix and field apart, and the others.
    fn fields(&mut self, family: Family, descs: &[StatDesc]) -> (Rc<[Field]>, Vec<usize>) {
        let (mut plain, mut whole) = (Vec::new(), Vec::new());
        for (index, desc) in descs.iter().enumerate().filter(|(_, desc)| family.holds(desc.kind)) {
            match self.own(desc.name) {
                Some((name, labels)) => plain.push(Field {
                    index,
                    name: name.clone(),
                    labels: labels.clone(),
                }),
                None => whole.push(index),
            }
        }
        plain.sort_by(|a, b| Order::Tokens.compare(&a.name, &b.name));
        (plain.into(), whole)
    }

    fn single<'s>(&mut self, scope: &ScopeInner, prefix: &Prefix, stat: Stat<'s>) -> Single<'s> {
        let name = stat.name();
        let full = [scope.prefix(), name].concat();
        if let Stat::Dynamic { stat: dynamic, .. } = stat
            && let Some(given) = &dynamic.tags
        {
            return Single {
                extracted: given.extracted_name.to_string(),
                full,
                labels: labels(&given.tags),
                stat,
            };
        }
        if let Some(extracted) = &prefix.extracted
            && let Some((name, own)) = self.own(name)
        {
            let labels = joined(own, &prefix.labels).into_owned();
            return Single {
                extracted: [extracted, name.as_str()].concat(),
                full,
                labels,
                stat,
            };
        }
        if let Some(given) = scope.explicit_tags() {
            let labels = labels(&given.tags);
            return Single {
                extracted: [&given.extracted_name, name].concat(),
                full,
                labels,
                stat,
            };
        }
        let Extracted { name, tags } = self.extractors.extract(&full);
        Single {
            extracted: name,
            full,
            labels: labels(&tags),
            stat,
        }
    }
}

fn joined<'l>(own: &str, prefix: &'l str) -> Cow<'l, str> {
    match (own.is_empty(), prefix.is_empty()) {
        (true, _) => prefix.into(),
        (false, true) => own.to_owned().into(),
        (false, false) => [own, ",", prefix].concat().into(),
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

pub(super) fn sanitized(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
        .collect()
}

pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
