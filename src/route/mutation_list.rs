//! Header mutations that run one after the other (`envoy.config.common.mutation_rules.v3.HeaderMutation`): each sees
//! what the ones before it did.

use http::{HeaderMap, HeaderName, HeaderValue};
use xds_protos::envoy::config::{
    common::mutation_rules::v3::{
        HeaderMutation,
        header_mutation::{Action, RemoveOnMatch},
    },
    core::v3::header_value_option::HeaderAppendAction,
};

use super::mutation::{Addition, removable};
use crate::{
    config::{BuildCx, ConfigResult},
    formatter::FormatCx,
    http::{RequestHead, ResponseHead, StreamInfo, inline_headers},
    matching::StringMatcher,
};

/// Mutations in the order they are configured.
#[derive(Debug, Clone, Default)]
pub struct HeaderMutationList(Box<[Mutation]>);

#[derive(Debug, Clone)]
enum Mutation {
    Append(Addition),
    Remove(Option<HeaderName>),
    RemoveOnMatch(StringMatcher),
}

impl HeaderMutationList {
    /// Builds the list that stands in `field`.
    pub fn build(field: &str, list: Vec<HeaderMutation>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let list = cx.each(field, list, |proto, cx| {
            coverage!(cx, proto => HeaderMutation { supported { action } });
            match action {
                Some(Action::Append(option)) => cx
                    .field("append", |cx| Addition::build(option, cx))
                    .map(Mutation::Append),
                Some(Action::Remove(name)) => cx.field("remove", |cx| removable(&name, cx)).map(Mutation::Remove),
                Some(Action::RemoveOnMatch(proto)) => cx.field("remove_on_match", |cx| {
                    coverage!(cx, proto => RemoveOnMatch { supported { key_matcher } });
                    cx.required("key_matcher", key_matcher, StringMatcher::build)
                        .map(Mutation::RemoveOnMatch)
                }),
                None => Err(cx.error_at("action", "value is required")),
            }
        })?;
        Ok(Self(list.into()))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes a request's headers.
    pub fn apply_to_request(&self, head: &mut RequestHead, info: &StreamInfo) {
        for mutation in &self.0 {
            let value = mutation.value(&FormatCx {
                request: Some(head),
                response: None,
                info,
            });
            mutation.apply(value, &mut head.headers);
            inline_headers::join_request(&mut head.headers);
        }
    }

    /// Changes a response's headers.
    pub fn apply_to_response(&self, head: &mut ResponseHead, request: &RequestHead, info: &StreamInfo) {
        for mutation in &self.0 {
            let value = mutation.value(&FormatCx {
                request: Some(request),
                response: Some(head),
                info,
            });
            mutation.apply(value, &mut head.headers);
            inline_headers::join_response(&mut head.headers);
        }
    }

    /// Formats the values now, for headers that come later: trailers.
    pub fn prepare(&self, cx: &FormatCx<'_>) -> PreparedMutations {
        PreparedMutations(self.0.iter().map(|m| (m.clone(), m.value(cx))).collect())
    }
}

/// Mutations whose values are known.
#[derive(Debug)]
pub struct PreparedMutations(Vec<(Mutation, Option<HeaderValue>)>);

impl PreparedMutations {
    /// Changes the headers.
    pub fn apply(self, headers: &mut HeaderMap) {
        for (mutation, value) in self.0 {
            mutation.apply(value, headers);
        }
    }
}

impl Mutation {
    fn value(&self, cx: &FormatCx<'_>) -> Option<HeaderValue> {
        match self {
            Self::Append(addition) => addition.value(cx),
            Self::Remove(_) | Self::RemoveOnMatch(_) => None,
        }
    }

    fn apply(&self, value: Option<HeaderValue>, headers: &mut HeaderMap) {
        match self {
            Self::Append(addition) => {
                let Some(value) = value else { return };
                let exists = || headers.contains_key(&addition.name);
                match addition.action {
                    HeaderAppendAction::AppendIfExistsOrAdd => {
                        headers.append(addition.name.clone(), value);
                    }
                    HeaderAppendAction::AddIfAbsent if exists() => {}
                    HeaderAppendAction::OverwriteIfExists if !exists() => {}
                    _ => {
                        headers.insert(addition.name.clone(), value);
                    }
                }
            }
            Self::Remove(name) => {
                if let Some(name) = name {
                    headers.remove(name);
                }
            }
            Self::RemoveOnMatch(matcher) => {
                let matched: Vec<_> = headers
                    .keys()
                    .filter(|name| matcher.matches(name.as_str().as_bytes()))
                    .cloned()
                    .collect();
                for name in matched {
                    headers.remove(name);
                }
            }
        }
    }
}
