//! The decision: allowed or not, by which policy, and whether the access log is hinted.

use std::{cell::Cell, sync::Arc};

use xds_protos::{
    envoy::config::rbac::v3::{Action as ActionProto, Policy as PolicyProto, Rbac, rbac::Action},
    google::protobuf::Any,
    xds::r#type::matcher::v3::Matcher as MatcherProto,
};

use super::Rule;
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    matching::{
        cel::{CelExpression, CelOptions},
        tree::{MatchCx, MatchTarget, Matcher},
    },
};

/// Where an engine works: decides what its matcher tree may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The HTTP filter.
    Http,
    /// The network filter.
    Network,
}

/// What an engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'e> {
    /// Whether access is granted.
    pub allowed: bool,
    /// The policy, or the matched action, that decided.
    pub policy: Option<&'e Arc<str>>,
    /// With `LOG` actions: whether this is to be logged.
    pub log_hint: Option<bool>,
}

/// The rules of a filter or of a route.
#[derive(Debug)]
pub enum Engine {
    /// `rules`: the first policy that matches, in the order of their names.
    Policies {
        /// What a match means.
        action: Action,
        /// By name.
        policies: Vec<(Arc<str>, Policy)>,
    },
    /// `matcher`: who matches nothing is denied.
    Tree {
        /// Leads to an action with a name.
        matcher: Matcher<(Arc<str>, Action)>,
        /// Whether any action is `LOG`.
        logs: bool,
    },
}

/// Who may do what.
#[derive(Debug)]
pub struct Policy {
    permissions: Vec<Rule>,
    principals: Vec<Rule>,
    condition: Option<CelExpression>,
}

impl Engine {
    /// `rules` or `matcher`, the latter first as in Envoy; none when neither is set.
    pub fn build(
        rules: (&str, Option<Rbac>),
        matcher: (&str, Option<MatcherProto>),
        place: Place,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Option<Self>> {
        let tree = cx.opt(matcher.0, matcher.1, |m, cx| Self::tree(m, place, cx))?;
        let policies = cx.opt(rules.0, rules.1, Self::policies)?;
        Ok(tree.or(policies))
    }

    fn policies(proto: Rbac, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let decision = proto.action();
        coverage!(cx, proto => Rbac {
            supported { action, policies }
            ignored { audit_logging_options: "Envoy runs no audit loggers either" }
        });
        // Read by its accessor.
        let _ = action;
        let mut built = Vec::with_capacity(policies.len());
        for (name, policy) in policies {
            let policy = cx.field(&format!("policies[{name}]"), |cx| Policy::build(policy, cx))?;
            built.push((Arc::from(name), policy));
        }
        built.sort_by(|a: &(Arc<str>, Policy), b| a.0.cmp(&b.0));
        Ok(Self::Policies {
            action: decision,
            policies: built,
        })
    }

    fn tree(proto: MatcherProto, place: Place, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mut target = Target {
            place,
            logs: Cell::new(false),
        };
        let matcher = Matcher::build(proto, &mut target, cx)?;
        Ok(Self::Tree {
            matcher,
            logs: target.logs.get(),
        })
    }

    /// Decides.
    pub fn check(&self, cx: &MatchCx<'_>) -> Verdict<'_> {
        match self {
            Self::Policies { action, policies } => {
                let matched = policies
                    .iter()
                    .find(|(_, policy)| policy.matches(cx))
                    .map(|(name, _)| name);
                Verdict {
                    allowed: match action {
                        Action::Allow => matched.is_some(),
                        Action::Deny => matched.is_none(),
                        Action::Log => true,
                    },
                    policy: matched,
                    log_hint: (*action == Action::Log).then_some(matched.is_some()),
                }
            }
            Self::Tree { matcher, logs } => match matcher.find(cx) {
                Some((name, action)) => Verdict {
                    allowed: *action != Action::Deny,
                    policy: Some(name),
                    log_hint: logs.then_some(*action == Action::Log),
                },
                None => Verdict {
                    allowed: false,
                    policy: None,
                    log_hint: None,
                },
            },
        }
    }
}

impl Policy {
    fn build(proto: PolicyProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => PolicyProto {
            supported { permissions, principals, condition, checked_condition, cel_config }
        });
        let options = CelOptions::build(cel_config, cx)?;
        let checked = checked_condition.map(|c| c.expr.unwrap_or_default());
        let condition = match (condition, checked) {
            // Of two the parsed one decides, as in Envoy.
            (Some(expr), _) => cx
                .field("condition", |cx| CelExpression::build_v1alpha1(expr, options, cx))
                .map(Some),
            (None, Some(expr)) => cx
                .field("checked_condition", |cx| {
                    CelExpression::build_v1alpha1(expr, options, cx)
                })
                .map(Some),
            (None, None) => Ok(None),
        }?;
        Ok(Self {
            permissions: cx.each("permissions", permissions, Rule::permission)?,
            principals: cx.each("principals", principals, Rule::principal)?,
            condition,
        })
    }

    fn matches(&self, cx: &MatchCx<'_>) -> bool {
        self.permissions.iter().any(|r| r.matches(cx))
            && self.principals.iter().any(|r| r.matches(cx))
            && self.condition.as_ref().is_none_or(|c| c.matches(cx))
    }
}

struct Target {
    place: Place,
    logs: Cell<bool>,
}

impl MatchTarget for Target {
    type Action = (Arc<str>, Action);

    fn allows(&self, input: &str) -> Result<(), String> {
        const NETWORK: [&str; 8] = [
            "DestinationIPInput",
            "DestinationPortInput",
            "SourceIPInput",
            "SourcePortInput",
            "DirectSourceIPInput",
            "ServerNameInput",
            "NetworkNamespaceInput",
            "FilterStateInput",
        ];
        let allowed = match input.rsplit_once('.') {
            Some(("envoy.extensions.matching.common_inputs.network.v3", kind)) => {
                NETWORK.contains(&kind) || (kind == "DynamicMetadataInput" && self.place == Place::Http)
            }
            Some(("envoy.extensions.matching.common_inputs.ssl.v3", _)) => true,
            Some(("envoy.type.matcher.v3", "HttpRequestHeaderMatchInput")) => self.place == Place::Http,
            Some(("xds.type.matcher.v3", "HttpAttributesCelMatchInput")) => self.place == Place::Http,
            _ => false,
        };
        let place = match self.place {
            Place::Http => "HTTP",
            Place::Network => "network",
        };
        match allowed {
            true => Ok(()),
            false => Err(format!(
                "RBAC {place} filter cannot match on 'type.googleapis.com/{input}'"
            )),
        }
    }

    fn action(&mut self, name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Self::Action> {
        if config.type_name() != "envoy.config.rbac.v3.Action" {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                config.type_name()
            )));
        }
        let proto = unpack::<ActionProto>(&config, cx)?;
        let kind = proto.action();
        coverage!(cx, proto => ActionProto { supported { name, action } });
        let _ = action;
        if kind == Action::Log {
            self.logs.set(true);
        }
        Ok((name.into(), kind))
    }
}
