//! Route header matchers (`envoy.config.route.v3.HeaderMatcher`, `CookieMatcher`).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use xds_protos::envoy::config::route::v3::{
    CookieMatcher as ProtoCookie, HeaderMatcher as Proto, header_matcher::HeaderMatchSpecifier,
};

use super::{RegexMatcher, StringMatcher};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, ResponseHead},
};

/// A header or pseudo-header by name, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderLookup {
    /// A pseudo-header, with its colon, or `host` as `:authority`.
    Pseudo(&'static str),
    /// Any other header.
    Header(HeaderName),
    /// What no header can be called: Envoy takes such names in its configuration, and finds nothing.
    Impossible,
}

impl HeaderLookup {
    /// Parses a name; none when it cannot be one.
    pub fn parse(name: &str) -> Option<Self> {
        const PSEUDO: [&str; 6] = [":method", ":scheme", ":authority", ":path", ":protocol", ":status"];
        let lower = name.to_ascii_lowercase();
        if lower == "host" {
            return Some(Self::Pseudo(":authority"));
        }
        match PSEUDO.into_iter().find(|p| *p == lower) {
            Some(p) => Some(Self::Pseudo(p)),
            None => HeaderName::try_from(lower).ok().map(Self::Header),
        }
    }

    /// Parses a name; one that no header can have is never found.
    pub fn of(name: &str) -> Self {
        Self::parse(name).unwrap_or(Self::Impossible)
    }

    /// The lower-case name; empty for one that no header can have.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pseudo(p) => p,
            Self::Header(h) => h.as_str(),
            Self::Impossible => "",
        }
    }

    /// The request's value, several joined by commas as Envoy does.
    pub fn get<'h>(&self, head: &'h RequestHead) -> Option<Cow<'h, [u8]>> {
        match self {
            Self::Pseudo(p) => head.get(p).map(Cow::Borrowed),
            Self::Header(name) => joined(&head.headers, name),
            Self::Impossible => None,
        }
    }

    /// The value in a header map, several joined by commas.
    pub fn of_map<'h>(&self, headers: &'h HeaderMap) -> Option<Cow<'h, [u8]>> {
        match self {
            Self::Pseudo(_) | Self::Impossible => None,
            Self::Header(name) => joined(headers, name),
        }
    }

    /// The response's value, several joined by commas.
    pub fn of_response<'h>(&self, head: &'h ResponseHead) -> Option<Cow<'h, [u8]>> {
        match self {
            Self::Pseudo(p) => head.get(p).map(Cow::Borrowed),
            Self::Header(name) => joined(&head.headers, name),
            Self::Impossible => None,
        }
    }

    /// The request's first value.
    pub fn first<'h>(&self, head: &'h RequestHead) -> Option<&'h [u8]> {
        match self {
            Self::Pseudo(p) => head.get(p),
            Self::Header(name) => head.headers.get(name).map(HeaderValue::as_bytes),
            Self::Impossible => None,
        }
    }
}

/// All values of a header, joined by commas; no allocation for a single one.
fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut all = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// Matches one header.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    name: HeaderLookup,
    rule: Rule,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Debug, Clone)]
enum Rule {
    Present(bool),
    Range { start: i64, end: i64 },
    Text(StringMatcher),
}

impl HeaderMatcher {
    /// Builds the matcher; without a specifier the header must be there.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { name, invert_match, treat_missing_header_as_empty, header_match_specifier }
        });
        use HeaderMatchSpecifier as S;
        let rule = match header_match_specifier {
            None => Rule::Present(true),
            Some(S::PresentMatch(present)) => Rule::Present(present),
            Some(S::RangeMatch(r)) => Rule::Range {
                start: r.start,
                end: r.end,
            },
            Some(S::ExactMatch(s)) => Rule::Text(StringMatcher::exact(s)),
            Some(S::PrefixMatch(s)) => Rule::Text(StringMatcher::prefix(s)),
            Some(S::SuffixMatch(s)) => Rule::Text(StringMatcher::suffix(s)),
            Some(S::ContainsMatch(s)) => Rule::Text(StringMatcher::contains(s)),
            Some(S::SafeRegexMatch(r)) => Rule::Text(StringMatcher::regex(
                cx.field("safe_regex_match", |cx| RegexMatcher::build(r, cx))?,
            )),
            Some(S::StringMatch(s)) => Rule::Text(cx.field("string_match", |cx| StringMatcher::build(s, cx))?),
        };
        Ok(Self {
            name: HeaderLookup::of(&name),
            rule,
            invert: invert_match,
            missing_is_empty: treat_missing_header_as_empty,
        })
    }

    /// Name of the header.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether the request's header matches.
    pub fn matches(&self, head: &RequestHead) -> bool {
        match &self.name {
            HeaderLookup::Pseudo(name) => self.matches_value(head.get(name)),
            HeaderLookup::Header(_) => self.matches_map(&head.headers),
            HeaderLookup::Impossible => self.matches_value(None),
        }
    }

    /// Whether the response's header, or `:status`, matches.
    pub fn matches_response(&self, head: &ResponseHead) -> bool {
        match &self.name {
            HeaderLookup::Pseudo(name) => self.matches_value(head.get(name)),
            HeaderLookup::Header(_) => self.matches_map(&head.headers),
            HeaderLookup::Impossible => self.matches_value(None),
        }
    }

    /// Whether a header of `headers` matches; pseudo-headers are not in there.
    ///
    /// Each of several values is looked at by itself: one that matches is enough, and inverted, none may.
    pub fn matches_map(&self, headers: &HeaderMap) -> bool {
        let HeaderLookup::Header(name) = &self.name else {
            return self.matches_value(None);
        };
        let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        match (values.next(), values.next()) {
            (first, None) => self.matches_value(first),
            (first, second) => {
                let mut all = first.into_iter().chain(second).chain(values);
                match self.invert {
                    false => all.any(|v| self.matches_value(Some(v))),
                    true => all.all(|v| self.matches_value(Some(v))),
                }
            }
        }
    }

    /// Whether this value, or its absence, matches. An absent header matches no rule on values, inverted or not.
    pub fn matches_value(&self, value: Option<&[u8]>) -> bool {
        let value = value.or(if self.missing_is_empty { Some(b"") } else { None });
        if let Rule::Present(present) = self.rule {
            return (value.is_some() == present) != self.invert;
        }
        let Some(value) = value else {
            return false;
        };
        let matched = match &self.rule {
            Rule::Present(_) => true,
            Rule::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|v| v.trim().parse::<i64>().ok())
                .is_some_and(|v| *start <= v && v < *end),
            Rule::Text(m) => m.matches(value),
        };
        matched != self.invert
    }
}

/// The value of a cookie of the request, without surrounding quotes.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    headers.get_all(header::COOKIE).iter().find_map(|v| {
        v.as_bytes().split(|b| *b == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            let unquoted = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
            Some(unquoted.unwrap_or(value))
        })
    })
}

/// Matches one cookie.
#[derive(Debug, Clone)]
pub struct CookieMatcher {
    name: String,
    matcher: StringMatcher,
    invert: bool,
}

impl CookieMatcher {
    /// Builds the matcher.
    pub fn build(proto: ProtoCookie, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoCookie { supported { name, string_match, invert_match } });
        Ok(Self {
            name,
            matcher: cx.required("string_match", string_match, StringMatcher::build)?,
            invert: invert_match,
        })
    }

    /// Whether the request's cookie matches; an absent one never does, unless inverted.
    pub fn matches(&self, head: &RequestHead) -> bool {
        cookie(&head.headers, &self.name).is_some_and(|v| self.matcher.matches(v)) != self.invert
    }
}
