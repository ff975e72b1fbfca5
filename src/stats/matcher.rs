//! Which statistics exist at all (`StatsConfig.stats_matcher`). What is not let through is never listed, and whole
//! scopes of it cost nothing.

use std::sync::Arc;

use super::block::StatDesc;

/// The stats matcher: everything, an inclusion list or an exclusion list.
#[derive(Debug, Clone, Default)]
pub(super) enum Matcher {
    /// Everything.
    #[default]
    All,
    /// Nothing.
    None,
    /// What one of the patterns matches.
    Include(Vec<Pattern>),
    /// What none of the patterns matches.
    Exclude(Vec<Pattern>),
}

/// Envoy's `StringMatcher`, as far as names of statistics go.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) rule: Rule,
    pub(super) ignore_case: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Rule {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Must match the whole name.
    Regex(regex::Regex),
}

impl Matcher {
    /// Whether a statistic of that name exists.
    pub(super) fn accepts(&self, name: &str) -> bool {
        match self {
            Matcher::All => true,
            Matcher::None => false,
            Matcher::Include(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
            Matcher::Exclude(patterns) => !patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }

    /// Which fields of a block exist below `prefix`; `None` if all do.
    pub(super) fn accepted_fields(&self, prefix: &str, descs: &[StatDesc]) -> Option<Arc<[bool]>> {
        if matches!(self, Matcher::All) {
            return None;
        }
        let mut name = prefix.to_owned();
        let accepted: Arc<[bool]> = descs
            .iter()
            .map(|desc| {
                name.truncate(prefix.len());
                name.push_str(desc.name);
                self.accepts(&name)
            })
            .collect();
        (!accepted.iter().all(|&accepted| accepted)).then_some(accepted)
    }
}

impl Pattern {
    pub(super) fn matches(&self, name: &str) -> bool {
        if self.ignore_case {
            self.rule.matches(&name.to_ascii_lowercase())
        } else {
            self.rule.matches(name)
        }
    }
}

impl Rule {
    fn matches(&self, name: &str) -> bool {
        match self {
            Rule::Exact(exact) => name == exact,
            Rule::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Rule::Suffix(suffix) => name.ends_with(suffix.as_str()),
            Rule::Contains(part) => name.contains(part.as_str()),
            Rule::Regex(regex) => regex.is_match(name),
        }
    }
}
