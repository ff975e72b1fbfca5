//! `filter_disabled`: connections that a listener filter passes over.

use std::ops::Range;

use xds_protos::envoy::{
    config::listener::v3::{
        ListenerFilterChainMatchPredicate as Proto,
        listener_filter_chain_match_predicate::{MatchSet, Rule},
    },
    r#type::v3::Int32Range,
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::ConnectionInfo,
};

/// `envoy.config.listener.v3.ListenerFilterChainMatchPredicate`
#[derive(Debug)]
pub(super) enum Predicate {
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
    Any,
    /// The port the client connected to, as filters before this one may have restored it. As in Envoy, an address
    /// without ports is in every range.
    DestinationPort(Range<i32>),
}

impl Predicate {
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { rule } });
        match rule {
            Some(Rule::OrMatch(set)) => cx.field("or_match", |cx| all(set, cx)).map(Self::Or),
            Some(Rule::AndMatch(set)) => cx.field("and_match", |cx| all(set, cx)).map(Self::And),
            Some(Rule::NotMatch(not)) => cx
                .field("not_match", |cx| Self::build(*not, cx))
                .map(|p| Self::Not(Box::new(p))),
            Some(Rule::AnyMatch(_)) => Ok(Self::Any),
            Some(Rule::DestinationPortRange(Int32Range { start, end })) => Ok(Self::DestinationPort(start..end)),
            None => Err(cx.error_at("rule", "value is required")),
        }
    }

    pub(super) fn matches(&self, info: &ConnectionInfo) -> bool {
        match self {
            Self::Or(rules) => rules.iter().any(|r| r.matches(info)),
            Self::And(rules) => rules.iter().all(|r| r.matches(info)),
            Self::Not(rule) => !rule.matches(info),
            Self::Any => true,
            Self::DestinationPort(range) => info.local_address.port().is_none_or(|p| range.contains(&p.into())),
        }
    }
}

fn all(proto: MatchSet, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<Predicate>> {
    coverage!(cx, proto => MatchSet { supported { rules } });
    cx.each("rules", rules, Predicate::build)
}
