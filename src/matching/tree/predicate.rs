//! Predicates of a matcher list.

use xds_protos::xds::r#type::matcher::v3::matcher::matcher_list::{
    Predicate as Proto,
    predicate::{MatchType, PredicateList, SinglePredicate, single_predicate::Matcher as ValueMatch},
};

use super::{Data, DataInput, MatchCx, MatchTarget, custom::CustomMatch};
use crate::{
    config::{BuildCx, ConfigResult},
    matching::StringMatcher,
};

#[derive(Debug)]
pub(super) enum Predicate {
    Text(DataInput, StringMatcher),
    Custom(DataInput, CustomMatch),
    Any(Vec<Predicate>),
    All(Vec<Predicate>),
    Not(Box<Predicate>),
}

impl Predicate {
    pub(super) fn build<T: MatchTarget>(proto: Proto, target: &T, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { match_type } });
        match match_type {
            Some(MatchType::SinglePredicate(single)) => cx.field("single_predicate", |cx| {
                coverage!(cx, single => SinglePredicate { supported { input, matcher } });
                let input = cx.required("input", input, |i, cx| DataInput::build(i, target, cx))?;
                match matcher {
                    Some(ValueMatch::ValueMatch(m)) => cx
                        .field("value_match", |cx| StringMatcher::from_xds(m, cx))
                        .map(|m| Self::Text(input, m)),
                    Some(ValueMatch::CustomMatch(m)) => cx
                        .field("custom_match", |cx| CustomMatch::build(m, cx))
                        .map(|m| Self::Custom(input, m)),
                    None => Err(cx.error_at("matcher", "value is required")),
                }
            }),
            Some(MatchType::OrMatcher(list)) => {
                cx.field("or_matcher", |cx| Self::list(list, target, cx)).map(Self::Any)
            }
            Some(MatchType::AndMatcher(list)) => cx
                .field("and_matcher", |cx| Self::list(list, target, cx))
                .map(Self::All),
            Some(MatchType::NotMatcher(not)) => cx
                .field("not_matcher", |cx| Self::build(*not, target, cx))
                .map(|p| Self::Not(Box::new(p))),
            None => Err(cx.error_at("match_type", "value is required")),
        }
    }

    fn list<T: MatchTarget>(list: PredicateList, target: &T, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<Self>> {
        coverage!(cx, list => PredicateList { supported { predicate } });
        cx.each("predicate", predicate, |p, cx| Self::build(p, target, cx))
    }

    pub(super) fn matches(&self, cx: &MatchCx<'_>) -> bool {
        match self {
            Self::Text(input, matcher) => input.get(cx).text().is_some_and(|text| matcher.matches(&text)),
            Self::Custom(input, matcher) => match input.get(cx) {
                Data::Missing => false,
                data => matcher.matches(&data, cx),
            },
            Self::Any(any) => any.iter().any(|p| p.matches(cx)),
            Self::All(all) => all.iter().all(|p| p.matches(cx)),
            Self::Not(not) => !not.matches(cx),
        }
    }
}
