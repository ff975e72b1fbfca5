//! Route query-parameter matchers.

use xds_protos::envoy::config::route::v3::{
    QueryParameterMatcher as Proto, query_parameter_matcher::QueryParameterMatchSpecifier,
};

use super::StringMatcher;
use crate::config::{BuildCx, ConfigResult};

/// The first value of a query parameter, as written (not decoded); empty when it has no `=`.
pub fn query_parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// Matches one query parameter.
#[derive(Debug, Clone)]
pub struct QueryParameterMatcher {
    name: String,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Present(bool),
    Text(StringMatcher),
}

impl QueryParameterMatcher {
    /// Builds the matcher; without a specifier the parameter must be there.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { name, query_parameter_match_specifier } });
        let rule = match query_parameter_match_specifier {
            None => Rule::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => Rule::Present(present),
            Some(QueryParameterMatchSpecifier::StringMatch(s)) => {
                Rule::Text(cx.field("string_match", |cx| StringMatcher::build(s, cx))?)
            }
        };
        Ok(Self { name, rule })
    }

    /// Whether the query (without `?`) matches.
    pub fn matches(&self, query: Option<&str>) -> bool {
        let value = query.and_then(|q| query_parameter(q, &self.name));
        match &self.rule {
            Rule::Present(present) => value.is_some() == *present,
            Rule::Text(m) => value.is_some_and(|v| m.matches(v.as_bytes())),
        }
    }
}
