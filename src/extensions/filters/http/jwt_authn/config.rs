//! `JwtAuthentication` -> [`Config`]: which requirement a request has to meet.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::{Method, header};
use xds_protos::envoy::extensions::filters::http::jwt_authn::v3::{
    FilterStateRule, JwtAuthentication as Proto, RequirementRule, requirement_rule::RequirementType,
};

use super::{
    OfRoute,
    filter::{FetchedKeys, JwtStats},
    provider::Provider,
    remote::Remote,
    requirement::{Providers, Requirement},
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, StreamInfo},
    route::RequestMatcher,
    stats::Stats,
};

/// The filter's configuration.
pub(super) struct Config {
    pub stats: Stats<JwtStats>,
    /// `strip_failure_response`
    pub strip: bool,
    providers: Providers,
    /// Where their keys are fetched.
    remotes: Vec<Arc<Remote>>,
    rules: Vec<Rule>,
    by_filter_state: Option<FilterStateRules>,
    bypass_cors_preflight: bool,
    /// `requirement_map`, in the order in which messages list it.
    named: BTreeMap<String, Requirement>,
}

struct Rule {
    matcher: RequestMatcher,
    requirement: RuleRequirement,
}

enum RuleRequirement {
    None,
    Own(Requirement),
    Named(String),
}

/// `FilterStateRule`
struct FilterStateRules {
    name: String,
    requires: HashMap<String, Requirement>,
}

/// What is asked of a request.
pub(super) enum Asked<'a> {
    /// Nothing.
    Nothing,
    /// Nothing, because it only asks what it may ask.
    Preflight,
    Requirement(&'a Requirement),
    /// A route names a requirement that there is not.
    Unknown(String),
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                providers, rules, filter_state_rules, bypass_cors_preflight, requirement_map, strip_failure_response,
                stat_prefix,
            }
        });
        let scope = match stat_prefix.as_str() {
            "" => format!("{}jwt_authn", cx.http_prefix),
            prefix => format!("{}jwt_authn.{prefix}", cx.http_prefix),
        };
        let stats: Stats<JwtStats> = cx.server.stats.scope(&scope).block();
        let mut built = Providers::new();
        for (name, proto) in providers {
            let provider = cx.field(&format!("providers[{name}]"), |cx| {
                Provider::build(&name, proto, &stats, cx)
            })?;
            built.insert(name, provider.into());
        }
        let providers = built;
        let mut named = BTreeMap::new();
        for (name, proto) in requirement_map {
            let requirement = cx.field(&format!("requirement_map[{name}]"), |cx| {
                Requirement::build(proto, &providers, cx)
            })?;
            named.insert(name, requirement);
        }
        let rules = cx.each("rules", rules, |proto, cx| {
            coverage!(cx, proto => RequirementRule { supported { r#match, requirement_type } });
            let matcher = cx.required("match", r#match, RequestMatcher::build)?;
            let requirement = match requirement_type {
                None => RuleRequirement::None,
                Some(RequirementType::Requires(proto)) => {
                    RuleRequirement::Own(cx.field("requires", |cx| Requirement::build(proto, &providers, cx))?)
                }
                Some(RequirementType::RequirementName(name)) => match named.contains_key(&name) {
                    true => RuleRequirement::Named(name),
                    false => return Err(cx.error(unknown(&name, &named))),
                },
            };
            Ok(Rule { matcher, requirement })
        })?;
        let by_filter_state = cx.opt("filter_state_rules", filter_state_rules, |proto, cx| {
            coverage!(cx, proto => FilterStateRule { supported { name, requires } });
            let mut built = HashMap::new();
            for (key, proto) in requires {
                let requirement = cx.field(&format!("requires[{key}]"), |cx| {
                    Requirement::build(proto, &providers, cx)
                })?;
                built.insert(key, requirement);
            }
            Ok(FilterStateRules { name, requires: built })
        })?;
        Ok(Self {
            stats,
            strip: strip_failure_response,
            remotes: providers.values().filter_map(|p| p.keys.remote().cloned()).collect(),
            providers,
            rules,
            by_filter_state,
            bypass_cors_preflight,
            named,
        })
    }

    /// What is asked of a request: by its route, or else by the first rule that matches.
    pub fn asked(&self, of_route: Option<&OfRoute>, head: &RequestHead, info: &StreamInfo) -> Asked<'_> {
        if self.bypass_cors_preflight && is_preflight(head) {
            return Asked::Preflight;
        }
        match of_route {
            Some(OfRoute::Disabled) => return Asked::Nothing,
            Some(OfRoute::Requirement(name)) => {
                return match self.named.get(name) {
                    Some(requirement) => Asked::Requirement(requirement),
                    None => Asked::Unknown(unknown(name, &self.named)),
                };
            }
            None => {}
        }
        let matches = |rule: &&Rule| rule.matcher.matches(head, info, fastrand::u64(..), false);
        let requirement = match self.rules.iter().find(matches).map(|rule| &rule.requirement) {
            Some(RuleRequirement::None) => None,
            Some(RuleRequirement::Own(requirement)) => Some(requirement),
            Some(RuleRequirement::Named(name)) => self.named.get(name),
            None => self.by_filter_state.as_ref().and_then(|rules| {
                let state = info.filter_state.get(&rules.name)?.as_text()?.into_owned();
                rules.requires.get(&state)
            }),
        };
        requirement.map_or(Asked::Nothing, Asked::Requirement)
    }

    /// The keys that there are without a fetch; what was fetched for this request comes first.
    pub fn keys_at_hand(&self, fetched: &FetchedKeys) -> FetchedKeys {
        let mut keys = fetched.clone();
        for remote in &self.remotes {
            if !keys.iter().any(|(of, _)| Arc::ptr_eq(of, remote))
                && let Some(fresh) = remote.fresh()
            {
                keys.push((remote.clone(), Some(fresh)));
            }
        }
        keys
    }

    /// Whether no more can be fetched than these.
    pub fn are_all(&self, keys: &FetchedKeys) -> bool {
        keys.len() >= self.remotes.len()
    }

    /// Removes what only accepted tokens may set, of all providers: a request that needs no token must not bring it.
    pub fn sanitize(&self, head: &mut RequestHead) {
        self.providers.values().for_each(|provider| provider.sanitize(head));
    }
}

fn unknown(name: &str, named: &BTreeMap<String, Requirement>) -> String {
    let known: Vec<&str> = named.keys().map(String::as_str).collect();
    format!(
        "Wrong requirement_name: {name}. It should be one of [{}]",
        known.join(",")
    )
}

fn is_preflight(head: &RequestHead) -> bool {
    let has = |name| head.headers.get(name).is_some_and(|v| !v.is_empty());
    head.method == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}
