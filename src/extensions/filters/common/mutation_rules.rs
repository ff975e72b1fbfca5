//! `envoy.config.common.mutation_rules.v3.HeaderMutationRules`: which headers a service may change.

use xds_protos::envoy::config::common::mutation_rules::v3::HeaderMutationRules;

use crate::{
    config::{BuildCx, ConfigResult},
    matching::RegexMatcher,
};

/// `HeaderMutationRules`
#[derive(Default)]
pub struct Rules {
    allow_all_routing: bool,
    allow_envoy: bool,
    disallow_system: bool,
    disallow_all: bool,
    allow: Option<RegexMatcher>,
    disallow: Option<RegexMatcher>,
    disallow_is_error: bool,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Ignored,
    Error,
}

impl Rules {
    pub fn build(proto: HeaderMutationRules, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HeaderMutationRules {
            supported {
                allow_all_routing, allow_envoy, disallow_system, disallow_all, allow_expression, disallow_expression,
                disallow_is_error,
            }
        });
        let flag = |v: Option<xds_protos::google::protobuf::BoolValue>| v.is_some_and(|v| v.value);
        Ok(Self {
            allow_all_routing: flag(allow_all_routing),
            allow_envoy: flag(allow_envoy),
            disallow_system: flag(disallow_system),
            disallow_all: flag(disallow_all),
            allow: cx.opt("allow_expression", allow_expression, RegexMatcher::build)?,
            disallow: cx.opt("disallow_expression", disallow_expression, RegexMatcher::build)?,
            disallow_is_error: flag(disallow_is_error),
        })
    }

    /// Whether this header, in lower case, may be set or removed.
    pub fn check(&self, name: &str, remove: bool) -> Verdict {
        let matches = |m: &Option<RegexMatcher>| m.as_ref().is_some_and(|m| m.matches(name.as_bytes()));
        let allowed = if (remove && (name.starts_with(':') || name == "host")) || matches(&self.disallow) {
            false
        } else if matches(&self.allow) {
            true
        } else if self.disallow_all || (name.starts_with(':') && self.disallow_system) {
            false
        } else if matches!(name, "host" | ":authority" | ":scheme" | ":method") {
            self.allow_all_routing
        } else {
            !name.starts_with("x-envoy") || self.allow_envoy
        };
        match (allowed, self.disallow_is_error) {
            (true, _) => Verdict::Allowed,
            (false, false) => Verdict::Ignored,
            (false, true) => Verdict::Error,
        }
    }
}
