//! Tags: parts of a statistic's name that Prometheus and tag-aware sinks see as labels.
//!
//! As in Envoy, a list of extractors looks at the full name; each that matches gives a tag and takes characters out
//! of the name, and what is left is the *extracted name*. Extraction happens while somebody reads. [`ScopeTags`] does
//! most of it once per scope, [`FieldTags`] once per name below: only what some extractor may see across both is looked
//! at one by one.

mod defaults;
mod extractor;

use std::ops::Range;

pub(super) use extractor::Extractor;

/// A tag of a statistic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Envoy's name of the tag, e.g. `envoy.cluster_name`.
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

impl Tag {
    /// A tag of that name and value.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// A name split into what is left of it and its tags, in Envoy's order of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The name without the parts that became tags.
    pub name: String,
    /// The tags.
    pub tags: Vec<Tag>,
}

/// All extractors, in the order they are asked: those that are bound to no first token, then the others.
#[derive(Debug, Clone)]
pub(super) struct Extractors(Vec<Extractor>);

/// A match of one extractor: its position among all, what it takes out, the tag's value.
struct Found<'n> {
    order: usize,
    remove: Range<usize>,
    value: &'n str,
}

impl Default for Extractors {
    fn default() -> Self {
        Self::new(defaults::all())
    }
}

impl Extractors {
    /// Takes extractors in the order of configuration: Envoy's defaults, then the user's.
    pub(super) fn new(mut extractors: Vec<Extractor>) -> Self {
        extractors.sort_by_key(|extractor| extractor.first_token().is_some());
        Self(extractors)
    }

    /// Extracts the tags of a full name.
    pub(super) fn extract(&self, name: &str) -> Extracted {
        let all = self.0.iter().enumerate();
        self.assemble(
            name,
            all.filter_map(|(order, extractor)| find(order, extractor, name))
                .collect(),
        )
    }

    /// What extraction depends on for names that end with `field`, below a prefix with [`ScopeTags::common`].
    pub(super) fn classify(&self, field: &str) -> FieldTags {
        let dotted = format!(".{field}");
        let mut own = Vec::new();
        for (order, extractor) in self.0.iter().enumerate() {
            match extractor.scope() {
                ExtractorScope::Field => own.extend(find(order, extractor, field)),
                ExtractorScope::Keyword(keyword) if dotted.contains(keyword) => return FieldTags::Whole,
                ExtractorScope::Name => return FieldTags::Whole,
                ExtractorScope::Keyword(_) | ExtractorScope::Prefix => {}
            }
        }
        // The field's own tags go first, so none of the prefix may.
        let last_own = own.last().map(|found| found.order);
        let scopes = self.0.iter().take(last_own.unwrap_or(0)).map(Extractor::scope);
        if scopes.into_iter().any(|scope| scope == ExtractorScope::Prefix) {
            return FieldTags::Whole;
        }
        FieldTags::Own(self.assemble(field, own))
    }

    fn assemble(&self, name: &str, mut found: Vec<Found<'_>>) -> Extracted {
        let mut tags: Vec<Tag> = Vec::with_capacity(found.len());
        found.retain(|found| {
            let tag = self.0[found.order].tag();
            let first = !tags.iter().any(|known| &*known.name == tag);
            if first {
                tags.push(Tag::new(tag, found.value));
            }
            first
        });
        found.sort_by_key(|found| found.remove.start);
        let (mut rest, mut at) = (String::with_capacity(name.len()), 0);
        for found in &found {
            if found.remove.start > at {
                rest.push_str(&name[at..found.remove.start]);
            }
            at = at.max(found.remove.end);
        }
        rest.push_str(&name[at..]);
        Extracted { name: rest, tags }
    }
}

fn find<'n>(order: usize, extractor: &'n Extractor, name: &'n str) -> Option<Found<'n>> {
    extractor
        .find(name)
        .map(|(remove, value)| Found { order, remove, value })
}

/// What the tags of a name depend on, beside its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FieldTags {
    /// On the name below the prefix alone: what is left of it, and its own tags, which go before the prefix's.
    Own(Extracted),
    /// On the whole name.
    Whole,
}

/// What of a name decides whether an extractor matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtractorScope {
    /// Only what is below a scope's prefix.
    Field,
    /// Only the prefix, if it has two tokens or more and something follows.
    Prefix,
    /// The whole name, and only if it has this keyword, which stands after a dot.
    Keyword(&'static str),
    /// The whole name (patterns of the user).
    Name,
}

/// The tags of everything below one prefix.
pub(super) struct ScopeTags {
    /// What is left of the prefix, and the tags in it; `None` if all names are to be looked at one by one.
    pub(super) common: Option<Extracted>,
}

impl ScopeTags {
    pub(super) fn new(extractors: &Extractors, prefix: &str) -> Self {
        let by_name = extractors.0.iter().any(|extractor| match extractor.scope() {
            ExtractorScope::Keyword(keyword) => prefix.contains(keyword),
            ExtractorScope::Name => true,
            ExtractorScope::Field | ExtractorScope::Prefix => false,
        });
        if by_name || prefix.bytes().filter(|&byte| byte == b'.').count() < 2 {
            return Self { common: None };
        }
        // Any field will do: what is asked here does not depend on it.
        let mut common = extractors.extract(&format!("{prefix}x"));
        let ends_as_field = common.name.pop() == Some('x');
        Self {
            common: ends_as_field.then_some(common),
        }
    }
}

/// Envoy's default extractors.
pub(super) fn default_extractors() -> Vec<Extractor> {
    defaults::all()
}

#[cfg(test)]
mod tests;
