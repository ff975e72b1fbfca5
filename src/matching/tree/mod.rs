//! Matcher trees (`xds.type.matcher.v3.Matcher`), generic over what a match leads to: RBAC decisions, routes, filter
//! chains.
//!
//! A [`Matcher`] is built once, for a [`MatchTarget`] that says which inputs may be asked and what an action is; then it
//! is evaluated on a [`MatchCx`]. As in Envoy, a match whose nested matcher finds nothing does not end the search: the
//! next one is tried, and at last `on_no_match`.

mod custom;
mod input;
mod lookup;
mod predicate;

use xds_protos::{
    google::protobuf::Any,
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::matcher::v3::{
            Matcher as Proto,
            matcher::{
                MatcherList, MatcherTree, MatcherType, OnMatch as OnMatchProto, matcher_list::FieldMatcher,
                on_match::OnMatch as OnMatchKind,
            },
        },
    },
};

pub use input::{Data, DataInput};

use self::{lookup::Lookup, predicate::Predicate};
use crate::{
    config::{BuildCx, ConfigResult, plain},
    http::{
        ConnectionInfo, RequestHead, ResponseHead, StreamInfo,
        stream_info::{Inspected, Metadata},
    },
};

/// What may be asked about. What is not there yet (a stream, while a filter chain is chosen) is missing, and matches
/// nothing.
#[derive(Clone, Copy)]
pub struct MatchCx<'a> {
    /// The connection.
    pub connection: &'a ConnectionInfo,
    /// The stream, once there is one.
    pub stream: Option<&'a StreamInfo>,
    /// The request's head.
    pub request: Option<&'a RequestHead>,
    /// The response's head.
    pub response: Option<&'a ResponseHead>,
    /// What listener filters found out; only while a filter chain is chosen.
    pub inspected: Option<&'a Inspected>,
    /// The endpoint; only while its transport socket is chosen.
    pub endpoint: Option<Endpoint<'a>>,
}

/// What an endpoint and its locality say of themselves.
#[derive(Clone, Copy)]
pub struct Endpoint<'a> {
    /// `LbEndpoint.metadata`
    pub metadata: &'a Metadata,
    /// `LocalityLbEndpoints.metadata`
    pub locality: &'a Metadata,
}

impl<'a> MatchCx<'a> {
    /// A request of a stream.
    pub fn request(info: &'a StreamInfo, request: &'a RequestHead) -> Self {
        Self {
            request: Some(request),
            ..Self::stream(info)
        }
    }

    /// A stream without HTTP.
    pub fn stream(info: &'a StreamInfo) -> Self {
        Self {
            stream: Some(info),
            ..Self::connection(&info.connection)
        }
    }

    /// A connection that nobody serves yet.
    pub fn connection(connection: &'a ConnectionInfo) -> Self {
        Self {
            connection,
            stream: None,
            request: None,
            response: None,
            inspected: None,
            endpoint: None,
        }
    }
}

/// Who a tree is built for.
pub trait MatchTarget {
    /// What a match leads to.
    type Action;

    /// Whether the input of this type (`envoy.type.matcher.v3.HttpRequestHeaderMatchInput`) can be asked here; or why
    /// not, in Envoy's words.
    fn allows(&self, input: &str) -> Result<(), String>;

    /// Builds an action.
    fn action(&mut self, name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Self::Action>;
}

/// A matcher: a list of predicates or a lookup, and what follows when nothing matched.
#[derive(Debug)]
pub struct Matcher<A> {
    kind: Kind<A>,
    on_no_match: Option<Box<OnMatch<A>>>,
}

#[derive(Debug)]
enum Kind<A> {
    /// Neither: only `on_no_match` is left.
    Nothing,
    List(Vec<(Predicate, OnMatch<A>)>),
    Tree(DataInput, Lookup<A>),
}

/// What follows a match.
#[derive(Debug)]
enum OnMatch<A> {
    Action(A),
    Matcher(Box<Matcher<A>>),
}

impl<A> OnMatch<A> {
    fn build<T: MatchTarget<Action = A>>(
        proto: OnMatchProto,
        target: &mut T,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        coverage!(cx, proto => OnMatchProto {
            supported { on_match }
            rejected { keep_matching: "keep_matching is not supported in this context" }
        });
        match on_match {
            Some(OnMatchKind::Matcher(nested)) => cx
                .field("matcher", |cx| Matcher::build(*nested, target, cx))
                .map(|m| Self::Matcher(Box::new(m))),
            Some(OnMatchKind::Action(action)) => cx.field("action", |cx| {
                let (name, any) = extension(action, cx)?;
                target.action(name, any, cx).map(Self::Action)
            }),
            None => Err(cx.error_at("on_match", "value is required")),
        }
    }

    fn find(&self, cx: &MatchCx<'_>) -> Option<&A> {
        match self {
            Self::Action(action) => Some(action),
            Self::Matcher(nested) => nested.find(cx),
        }
    }
}

impl<A> Matcher<A> {
    /// Builds a matcher and all that is nested in it.
    pub fn build<T: MatchTarget<Action = A>>(proto: Proto, target: &mut T, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { matcher_type, on_no_match } });
        let kind = match matcher_type {
            None => Kind::Nothing,
            Some(MatcherType::MatcherList(MatcherList { matchers })) => {
                Kind::List(cx.each("matcher_list.matchers", matchers, |m, cx| {
                    coverage!(cx, m => FieldMatcher { supported { predicate, on_match } });
                    let predicate = cx.required("predicate", predicate, |p, cx| Predicate::build(p, target, cx))?;
                    let then = cx.required("on_match", on_match, |m, cx| OnMatch::build(m, target, cx))?;
                    Ok((predicate, then))
                })?)
            }
            Some(MatcherType::MatcherTree(tree)) => cx.field("matcher_tree", |cx| {
                coverage!(cx, tree => MatcherTree { supported { input, tree_type } });
                let input = cx.required("input", input, |i, cx| DataInput::build(i, target, cx))?;
                Lookup::build(tree_type, target, cx).map(|lookup| Kind::Tree(input, lookup))
            })?,
        };
        let on_no_match = cx.opt("on_no_match", on_no_match, |m, cx| OnMatch::build(*m, target, cx))?;
        Ok(Self {
            kind,
            on_no_match: on_no_match.map(Box::new),
        })
    }

    /// The action that follows; none when nothing matched.
    pub fn find(&self, cx: &MatchCx<'_>) -> Option<&A> {
        let found = match &self.kind {
            Kind::Nothing => None,
            Kind::List(list) => list
                .iter()
                .filter(|(predicate, _)| predicate.matches(cx))
                .find_map(|(_, then)| then.find(cx)),
            Kind::Tree(input, lookup) => lookup.find(&input.get(cx), cx),
        };
        found.or_else(|| self.on_no_match.as_ref()?.find(cx))
    }
}

/// An extension's name and its configuration, `TypedStruct` opened.
fn extension(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<(String, Any)> {
    coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
    Ok((name, plain(typed_config.unwrap_or_default(), cx)?))
}

/// Envoy's answer to an extension that is not there.
fn unknown(name: &str, type_name: &str) -> String {
    format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'")
}

#[cfg(test)]
mod tests;
