//! `envoy.type.matcher.v3.StringMatcher`.

use xds_protos::{
    envoy::r#type::matcher::v3::{
        RegexMatcher as RegexMatcherProto, StringMatcher as Proto, string_matcher::MatchPattern,
    },
    xds::r#type::matcher::v3 as xds,
};

use super::RegexMatcher;
use crate::config::{BuildCx, ConfigResult};

/// Matches a text by equality, part or regular expression. Texts are bytes: header values need not be UTF-8.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(RegexMatcher),
}

impl StringMatcher {
    /// Builds the matcher; `ignore_case` has no effect on regular expressions, as in Envoy.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { ignore_case, match_pattern } });
        let text = |s: String| {
            if ignore_case { s.to_ascii_lowercase() } else { s }
                .into_bytes()
                .into_boxed_slice()
        };
        let pattern = match match_pattern {
            Some(MatchPattern::Exact(s)) => Pattern::Exact(text(s)),
            Some(MatchPattern::Prefix(s)) => Pattern::Prefix(text(s)),
            Some(MatchPattern::Suffix(s)) => Pattern::Suffix(text(s)),
            Some(MatchPattern::Contains(s)) => Pattern::Contains(text(s)),
            Some(MatchPattern::SafeRegex(r)) => {
                if ignore_case {
                    return Err(cx.error("ignore_case has no effect for safe_regex."));
                }
                Pattern::Regex(cx.field("safe_regex", |cx| RegexMatcher::build(r, cx))?)
            }
            Some(MatchPattern::Custom(c)) => {
                return Err(cx.error_at(
                    "custom",
                    format!(
                        "Didn't find a registered implementation for '{}' with type URL: '{}'",
                        c.name,
                        c.typed_config.map(|a| a.type_url).unwrap_or_default()
                    ),
                ));
            }
            None => return Err(cx.error_at("match_pattern", "value is required")),
        };
        Ok(Self { pattern, ignore_case })
    }

    /// Builds the matcher of `xds.type.matcher.v3`, which says the same in a package of its own.
    pub fn from_xds(proto: xds::StringMatcher, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        use xds::string_matcher::MatchPattern as Xds;
        coverage!(cx, proto => xds::StringMatcher { supported { ignore_case, match_pattern } });
        let match_pattern = match match_pattern {
            Some(Xds::Exact(s)) => Some(MatchPattern::Exact(s)),
            Some(Xds::Prefix(s)) => Some(MatchPattern::Prefix(s)),
            Some(Xds::Suffix(s)) => Some(MatchPattern::Suffix(s)),
            Some(Xds::Contains(s)) => Some(MatchPattern::Contains(s)),
            Some(Xds::SafeRegex(r)) => {
                coverage!(cx, r => xds::RegexMatcher { supported { engine_type, regex } });
                let _ = engine_type;
                Some(MatchPattern::SafeRegex(RegexMatcherProto {
                    regex,
                    ..RegexMatcherProto::default()
                }))
            }
            Some(Xds::Custom(c)) => Some(MatchPattern::Custom(c)),
            None => None,
        };
        Self::build(
            Proto {
                ignore_case,
                match_pattern,
            },
            cx,
        )
    }

    /// A matcher of exactly this text.
    pub fn exact(text: impl Into<String>) -> Self {
        Self::plain(Pattern::Exact(text.into().into_bytes().into()))
    }

    /// A matcher of texts that begin so.
    pub fn prefix(text: impl Into<String>) -> Self {
        Self::plain(Pattern::Prefix(text.into().into_bytes().into()))
    }

    /// A matcher of texts that end so.
    pub fn suffix(text: impl Into<String>) -> Self {
        Self::plain(Pattern::Suffix(text.into().into_bytes().into()))
    }

    /// A matcher of texts that have this in them.
    pub fn contains(text: impl Into<String>) -> Self {
        Self::plain(Pattern::Contains(text.into().into_bytes().into()))
    }

    /// A matcher by regular expression.
    pub fn regex(regex: RegexMatcher) -> Self {
        Self::plain(Pattern::Regex(regex))
    }

    fn plain(pattern: Pattern) -> Self {
        Self {
            pattern,
            ignore_case: false,
        }
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| {
            if self.ignore_case {
                a.eq_ignore_ascii_case(b)
            } else {
                a == b
            }
        };
        match &self.pattern {
            Pattern::Exact(p) => same(text, p),
            Pattern::Prefix(p) => text.get(..p.len()).is_some_and(|t| same(t, p)),
            Pattern::Suffix(p) => text
                .len()
                .checked_sub(p.len())
                .and_then(|at| text.get(at..))
                .is_some_and(|t| same(t, p)),
            Pattern::Contains(p) => p.is_empty() || text.windows(p.len()).any(|t| same(t, p)),
            Pattern::Regex(r) => r.matches(text),
        }
    }
}
