//! `RBAC` of the HTTP filter, and of its routes.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use xds_protos::envoy::extensions::filters::http::rbac::v3::Rbac as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::common::rbac::{Engine, POLICY_ID, Place, RESULT, stat_prefix},
    stats::{Counter, Scope, Stats},
};

crate::stats_block! {
    /// `http.<stat_prefix>.rbac.<rules_stat_prefix>.*`
    pub(super) struct EnforcedStats {
        counter allowed, "Requests that were allowed";
        counter denied, "Requests that were denied";
    }
}

crate::stats_block! {
    /// `http.<stat_prefix>.rbac.<shadow_rules_stat_prefix>.*`
    pub(super) struct ShadowStats {
        counter shadow_allowed, "Requests that the shadow rules would allow";
        counter shadow_denied, "Requests that the shadow rules would deny";
    }
}

/// The filter.
pub(super) struct Config {
    pub rules: Arc<Rules>,
    pub enforced: Stats<EnforcedStats>,
    pub shadow: Stats<ShadowStats>,
    pub enforced_policies: PolicyStats,
    pub shadow_policies: PolicyStats,
}

/// A route's rules, instead of the filter's.
pub(super) struct RouteRules(pub Arc<Rules>);

/// What filters and routes have alike.
pub(super) struct Rules {
    pub engine: Option<Engine>,
    pub shadow: Option<Engine>,
    pub enforced_keys: Keys,
    pub shadow_keys: Keys,
    /// `track_per_rule_stats`
    pub per_policy: bool,
}

/// Names of the dynamic metadata that tells of a decision.
pub(super) struct Keys {
    pub policy: String,
    pub result: String,
}

impl Keys {
    fn new(prefix: &str, mode: &str) -> Self {
        Self {
            policy: format!("{prefix}{mode}_{POLICY_ID}"),
            result: format!("{prefix}{mode}_{RESULT}"),
        }
    }
}

impl Rules {
    /// Builds the rules of a route, or those of the filter.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                rules, rules_stat_prefix, matcher, shadow_rules, shadow_matcher, shadow_rules_stat_prefix,
                track_per_rule_stats
            }
        });
        Ok(Self {
            engine: Engine::build(("rules", rules), ("matcher", matcher), Place::Http, cx)?,
            shadow: Engine::build(
                ("shadow_rules", shadow_rules),
                ("shadow_matcher", shadow_matcher),
                Place::Http,
                cx,
            )?,
            enforced_keys: Keys::new(&rules_stat_prefix, "enforced"),
            shadow_keys: Keys::new(&shadow_rules_stat_prefix, "shadow"),
            per_policy: track_per_rule_stats,
        })
    }
}

impl Config {
    /// Builds the filter.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let prefix = format!("{}rbac.", cx.http_prefix);
        let enforced = stat_prefix(&prefix, &proto.rules_stat_prefix);
        let shadow = stat_prefix(&prefix, &proto.shadow_rules_stat_prefix);
        let rules = Arc::new(Rules::build(proto, cx)?);
        let (enforced, shadow) = (cx.server.stats.scope(&enforced), cx.server.stats.scope(&shadow));
        Ok(Self {
            rules,
            enforced: enforced.block(),
            shadow: shadow.block(),
            enforced_policies: PolicyStats::new(enforced, ""),
            shadow_policies: PolicyStats::new(shadow, "shadow_"),
        })
    }
}

/// `policy.<name>.allowed` and `.denied`, made when they first count. Routes bring policies of their own, so the names
/// are not known before.
pub(super) struct PolicyStats {
    scope: Scope,
    prefix: &'static str,
    counters: ArcSwap<HashMap<(Arc<str>, bool), Counter>>,
}

impl PolicyStats {
    fn new(scope: Scope, prefix: &'static str) -> Self {
        Self {
            scope,
            prefix,
            counters: ArcSwap::default(),
        }
    }

    /// Counts a decision of a policy.
    pub fn count(&self, policy: &Arc<str>, allowed: bool) {
        let key = (policy.clone(), allowed);
        if let Some(counter) = self.counters.load().get(&key) {
            counter.inc();
            return;
        }
        let word = if allowed { "allowed" } else { "denied" };
        let counter = self.scope.counter(&format!("policy.{policy}.{}{word}", self.prefix));
        counter.inc();
        self.counters.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(key.clone(), counter.clone());
            all
        });
    }
}
