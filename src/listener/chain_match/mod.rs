//! Which filter chain takes a connection: by the criteria of the chains (`FilterChainMatch`), or by a matcher tree in
//! their place (`filter_chain_matcher`).

mod criteria;
mod levels;
mod target;
mod tree;

use std::{collections::HashMap, sync::Arc};

use xds_protos::{
    dynamic, envoy::config::listener::v3::FilterChainMatch, print, xds::r#type::matcher::v3::Matcher as MatcherProto,
};

use self::{criteria::Criteria, target::ChainNames, tree::CriteriaTree};
use super::chain::FilterChain;
use crate::{
    config::{BuildCx, ConfigError, ConfigResult},
    http::{ConnectionInfo, stream_info::Inspected},
    matching::tree::{MatchCx, Matcher},
    net::Address,
};

/// The chains of a listener and how to choose among them.
pub struct ChainMatcher {
    chains: Vec<Arc<FilterChain>>,
    default: Option<Arc<FilterChain>>,
    by: By,
}

enum By {
    /// Each chain's own criteria.
    Criteria(CriteriaTree),
    /// A matcher that leads to a name, and the chains by their names.
    Matcher(Box<Matcher<Arc<str>>>, HashMap<Arc<str>, usize>),
}

impl ChainMatcher {
    /// Checks the chains against each other. `address` names the listener in errors.
    pub fn build(
        chains: Vec<Arc<FilterChain>>,
        default: Option<Arc<FilterChain>>,
        matcher: Option<MatcherProto>,
        address: &Address,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let refused = |why: String| ConfigError::new("", format!("error adding listener '{address}': {why}"));
        let by = match matcher {
            None => By::Criteria(by_criteria(&chains, &refused, cx)?),
            Some(matcher) => {
                let names = by_name(&chains, &refused)?;
                let matcher = cx.field("filter_chain_matcher", |cx| {
                    Matcher::build(matcher, &mut ChainNames, cx)
                })?;
                By::Matcher(Box::new(matcher), names)
            }
        };
        Ok(Self { chains, default, by })
    }

    /// Every chain, the default one last.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.iter().chain(&self.default)
    }

    /// `default_filter_chain`
    pub fn default_chain(&self) -> Option<&Arc<FilterChain>> {
        self.default.as_ref()
    }

    /// The chain of a connection; none when no chain matches and there is no default, or when a matcher leads to a
    /// chain that there is not.
    pub fn find(&self, info: &ConnectionInfo, inspected: &Inspected) -> Option<&Arc<FilterChain>> {
        let index = match &self.by {
            By::Criteria(tree) => tree.find(info, inspected),
            By::Matcher(matcher, names) => {
                let cx = MatchCx {
                    inspected: Some(inspected),
                    ..MatchCx::connection(info)
                };
                match matcher.find(&cx) {
                    Some(name) => return names.get(name).and_then(|i| self.chains.get(*i)),
                    None => None,
                }
            }
        };
        match index {
            Some(index) => self.chains.get(index),
            None => self.default.as_ref(),
        }
    }
}

fn by_criteria(
    chains: &[Arc<FilterChain>],
    refused: &impl Fn(String) -> ConfigError,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<CriteriaTree> {
    let mut tree = CriteriaTree::default();
    let mut known: HashMap<Criteria, &str> = HashMap::with_capacity(chains.len());
    for (i, chain) in chains.iter().enumerate() {
        let criteria = cx.item("filter_chains", i, |cx| {
            cx.field("filter_chain_match", |cx| Criteria::build(&chain.criteria, cx))
        })?;
        if let Some(other) = known.get(&criteria) {
            return Err(refused(format!(
                "filter chain '{}' has the same matching rules defined as '{other}'. duplicate matcher is: {}",
                chain.name,
                text(&chain.criteria)
            )));
        }
        tree.insert(&criteria, i)
            .map_err(|_| refused("multiple filter chains with overlapping matching rules are defined".to_owned()))?;
        known.insert(criteria, &chain.name);
    }
    Ok(tree)
}

fn by_name(
    chains: &[Arc<FilterChain>],
    refused: &impl Fn(String) -> ConfigError,
) -> ConfigResult<HashMap<Arc<str>, usize>> {
    let mut names = HashMap::with_capacity(chains.len());
    for (i, chain) in chains.iter().enumerate() {
        if chain.name.is_empty() {
            return Err(refused(
                "\"name\" field is required when using a listener matcher".to_owned(),
            ));
        }
        if names.insert(chain.name.clone(), i).is_some() {
            return Err(refused(format!(
                "\"name\" field is duplicated with value '{}'",
                chain.name
            )));
        }
    }
    Ok(names)
}

/// The criteria as JSON, for people who look for them.
fn text(criteria: &FilterChainMatch) -> String {
    let options = print::PrintOptions {
        pretty: false,
        ..Default::default()
    };
    dynamic::from_typed(criteria).map_or_else(|_| String::new(), |m| print::json(&m, options))
}
