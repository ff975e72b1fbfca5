//! `envoy.config.common.matcher.v3.MatchPredicate` of what the head of a response says.

use xds_protos::envoy::config::common::matcher::v3::{
    HttpHeadersMatch, MatchPredicate as Proto,
    match_predicate::{MatchSet, Rule},
};

use super::HeaderMatcher;
use crate::{
    config::{BuildCx, ConfigResult},
    http::ResponseHead,
};

/// A combination of matchers of response headers. As in Envoy, what asks for requests, bodies or trailers can stand
/// there and never matches: the decision is made when the head has come.
#[derive(Debug)]
pub enum ResponsePredicate {
    /// `or_match`
    Any(Vec<Self>),
    /// `and_match`, and `http_response_headers_match`
    All(Vec<Self>),
    /// `not_match`
    Not(Box<Self>),
    /// A header.
    Header(Box<HeaderMatcher>),
    /// `any_match`
    Always,
    /// What is not known yet.
    Never,
}

/// The same one, not one that matches the same.
impl PartialEq for ResponsePredicate {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl ResponsePredicate {
    /// Builds the predicate.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { rule } });
        match rule {
            Some(Rule::OrMatch(MatchSet { rules })) => Ok(Self::Any(cx.each("or_match.rules", rules, Self::build)?)),
            Some(Rule::AndMatch(MatchSet { rules })) => {
                Ok(Self::All(cx.each("and_match.rules", rules, Self::build)?))
            }
            Some(Rule::NotMatch(rule)) => {
                let rule = cx.field("not_match", |cx| Self::build(*rule, cx))?;
                Ok(Self::Not(Box::new(rule)))
            }
            Some(Rule::AnyMatch(_)) => Ok(Self::Always),
            Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers })) => {
                let header = |proto, cx: &mut BuildCx<'_>| Ok(Self::Header(Box::new(HeaderMatcher::build(proto, cx)?)));
                Ok(Self::All(cx.each(
                    "http_response_headers_match.headers",
                    headers,
                    header,
                )?))
            }
            Some(_) => Ok(Self::Never),
            None => Err(cx.error_at("rule", "value is required")),
        }
    }

    /// Whether the response is one of those.
    pub fn matches(&self, head: &ResponseHead) -> bool {
        match self {
            Self::Any(rules) => rules.iter().any(|r| r.matches(head)),
            Self::All(rules) => rules.iter().all(|r| r.matches(head)),
            Self::Not(rule) => !rule.matches(head),
            Self::Header(header) => header.matches_response(head),
            Self::Always => true,
            Self::Never => false,
        }
    }
}
