//! Matchers on structured values: `ValueMatcher`, `MetadataMatcher`, `FilterStateMatcher`.

use xds_protos::{
    envoy::r#type::matcher::v3::{
        DoubleMatcher, FilterStateMatcher as ProtoFilterState, ListMatcher, MetadataMatcher as ProtoMetadata,
        OrMatcher, ValueMatcher as ProtoValue, double_matcher, filter_state_matcher, list_matcher, metadata_matcher,
        value_matcher::MatchPattern,
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use super::{AddressMatcher, StringMatcher};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{StreamInfo, stream_info::FilterStateObject},
};

/// The value at a path of keys below `root`; none as soon as a key is missing or a step is no struct.
pub fn struct_path<K: AsRef<str>>(root: &Struct, path: impl IntoIterator<Item = K>) -> Option<&Value> {
    let mut path = path.into_iter();
    let mut value = root.fields.get(path.next()?.as_ref())?;
    for key in path {
        match &value.kind {
            Some(Kind::StructValue(s)) => value = s.fields.get(key.as_ref())?,
            _ => return None,
        }
    }
    Some(value)
}

/// Matches a `google.protobuf.Value`, or its absence.
#[derive(Debug, Clone)]
pub enum ValueMatcher {
    /// A null.
    Null,
    /// A number in `[start, end)`.
    Range {
        /// Inclusive.
        start: f64,
        /// Exclusive.
        end: f64,
    },
    /// Exactly this number.
    Number(f64),
    /// A string.
    Text(StringMatcher),
    /// Exactly this boolean.
    Bool(bool),
    /// Whether there is a value; `false` matches nothing, as in Envoy.
    Present(bool),
    /// A list in which one value matches.
    OneOf(Box<ValueMatcher>),
    /// Any of these.
    Or(Vec<ValueMatcher>),
}

impl ValueMatcher {
    /// Builds the matcher.
    pub fn build(proto: ProtoValue, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoValue { supported { match_pattern } });
        Ok(match match_pattern {
            Some(MatchPattern::NullMatch(_)) => Self::Null,
            Some(MatchPattern::DoubleMatch(m)) => cx.field("double_match", |cx| number(m, cx))?,
            Some(MatchPattern::StringMatch(m)) => {
                Self::Text(cx.field("string_match", |cx| StringMatcher::build(m, cx))?)
            }
            Some(MatchPattern::BoolMatch(b)) => Self::Bool(b),
            Some(MatchPattern::PresentMatch(b)) => Self::Present(b),
            Some(MatchPattern::ListMatch(m)) => Self::OneOf(Box::new(cx.field("list_match", |cx| list(*m, cx))?)),
            Some(MatchPattern::OrMatch(m)) => {
                coverage!(cx, m => OrMatcher { supported { value_matchers } });
                Self::Or(cx.each("or_match.value_matchers", value_matchers, Self::build)?)
            }
            None => return Err(cx.error_at("match_pattern", "value is required")),
        })
    }

    /// Whether the value matches.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        let kind = value.and_then(|v| v.kind.as_ref());
        match (self, kind) {
            (Self::Present(present), _) => *present && value.is_some(),
            (Self::Or(any), _) => any.iter().any(|m| m.matches(value)),
            (Self::Null, Some(Kind::NullValue(_))) => true,
            (Self::Range { start, end }, Some(Kind::NumberValue(n))) => start <= n && n < end,
            (Self::Number(exact), Some(Kind::NumberValue(n))) => exact == n,
            (Self::Text(m), Some(Kind::StringValue(s))) => m.matches(s.as_bytes()),
            (Self::Bool(exact), Some(Kind::BoolValue(b))) => exact == b,
            (Self::OneOf(m), Some(Kind::ListValue(l))) => l.values.iter().any(|v| m.matches(Some(v))),
            _ => false,
        }
    }
}

fn number(proto: DoubleMatcher, cx: &mut BuildCx<'_>) -> ConfigResult<ValueMatcher> {
    coverage!(cx, proto => DoubleMatcher { supported { match_pattern } });
    match match_pattern {
        Some(double_matcher::MatchPattern::Range(r)) => Ok(ValueMatcher::Range {
            start: r.start,
            end: r.end,
        }),
        Some(double_matcher::MatchPattern::Exact(n)) => Ok(ValueMatcher::Number(n)),
        None => Err(cx.error_at("match_pattern", "value is required")),
    }
}

fn list(proto: ListMatcher, cx: &mut BuildCx<'_>) -> ConfigResult<ValueMatcher> {
    coverage!(cx, proto => ListMatcher { supported { match_pattern } });
    match match_pattern {
        Some(list_matcher::MatchPattern::OneOf(m)) => cx.field("one_of", |cx| ValueMatcher::build(*m, cx)),
        None => Err(cx.error_at("match_pattern", "value is required")),
    }
}

/// Matches a value in metadata: the struct of a filter, a path in it, and what must stand there.
#[derive(Debug, Clone)]
pub struct MetadataMatcher {
    filter: String,
    path: Vec<String>,
    value: ValueMatcher,
    invert: bool,
}

impl MetadataMatcher {
    /// Builds the matcher.
    pub fn build(proto: ProtoMetadata, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoMetadata { supported { filter, path, value, invert } });
        let path = path
            .into_iter()
            .filter_map(|p| p.segment.map(|metadata_matcher::path_segment::Segment::Key(k)| k))
            .collect();
        Ok(Self {
            filter,
            path,
            value: cx.required("value", value, ValueMatcher::build)?,
            invert,
        })
    }

    /// Whether metadata matches; `lookup` gives the struct of a filter name.
    pub fn matches<'m>(&self, lookup: impl FnOnce(&str) -> Option<&'m Struct>) -> bool {
        let value = lookup(&self.filter).and_then(|s| struct_path(s, &self.path));
        self.value.matches(value) != self.invert
    }

    /// Whether the stream's dynamic metadata matches.
    pub fn matches_dynamic(&self, info: &StreamInfo) -> bool {
        self.matches(|filter| info.metadata.get(filter))
    }
}

/// Matches an object of filter state by its text.
#[derive(Debug, Clone)]
pub struct FilterStateMatcher {
    key: String,
    rule: FilterStateRule,
}

#[derive(Debug, Clone)]
enum FilterStateRule {
    Text(StringMatcher),
    Address(AddressMatcher),
}

impl FilterStateMatcher {
    /// Builds the matcher.
    pub fn build(proto: ProtoFilterState, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoFilterState { supported { key, matcher } });
        let rule = match matcher {
            Some(filter_state_matcher::Matcher::StringMatch(m)) => {
                FilterStateRule::Text(cx.field("string_match", |cx| StringMatcher::build(m, cx))?)
            }
            Some(filter_state_matcher::Matcher::AddressMatch(m)) => {
                FilterStateRule::Address(cx.field("address_match", |cx| AddressMatcher::build(m, cx))?)
            }
            None => return Err(cx.error_at("matcher", "value is required")),
        };
        Ok(Self { key, rule })
    }

    /// Whether the stream's (or its connection's) filter state matches; a missing object never does.
    pub fn matches(&self, info: &StreamInfo) -> bool {
        if let Some(object) = info.filter_state.get(&self.key) {
            return self.matches_object(object);
        }
        let connection = info.connection.filter_state.borrow();
        connection
            .get(&self.key)
            .is_some_and(|object| self.matches_object(object))
    }

    fn matches_object(&self, object: &dyn FilterStateObject) -> bool {
        match &self.rule {
            FilterStateRule::Text(m) => object.as_text().is_some_and(|text| m.matches(text.as_bytes())),
            FilterStateRule::Address(m) => object.ip().is_some_and(|ip| m.matches(Some(ip))),
        }
    }
}
