//! `envoy.filters.network.rbac`: who may send bytes.
//!
//! As in Envoy the rules are asked when the client has sent something: a server that speaks first may do so before.

use std::{future::pending, rc::Rc, sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use xds_protos::{
    envoy::{
        config::rbac::v3::{Permission, Principal, Rbac as Rules, permission::Rule, principal::Identifier},
        extensions::filters::network::rbac::v3::{Rbac as Proto, rbac::EnforcementType},
    },
    google::protobuf::{Value, value::Kind},
};

use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    extensions::filters::common::rbac::{Engine, POLICY_ID, Place, RESULT, denial_details, stat_prefix as joined},
    http::{ConnectionInfo, StreamInfo},
    matching::tree::MatchCx,
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory, hold::hold},
    server::Worker,
    stats::Stats,
    stats_block,
};

/// The namespace of what is noted.
const NAMESPACE: &str = "envoy.filters.network.rbac";

stats_block! {
    /// `<stat_prefix>.rbac.*`
    struct EnforcedStats {
        counter allowed, "Connections that were allowed";
        counter denied, "Connections that were denied";
    }
}

stats_block! {
    /// `<stat_prefix>.rbac.<shadow_rules_stat_prefix>.*`
    struct ShadowStats {
        counter shadow_allowed, "Connections that the shadow rules would allow";
        counter shadow_denied, "Connections that the shadow rules would deny";
    }
}

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.rbac";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        let continuous = proto.enforcement_type() == EnforcementType::Continuous;
        coverage!(cx, proto => Proto {
            supported {
                rules, matcher, shadow_rules, shadow_matcher, shadow_rules_stat_prefix, stat_prefix,
                enforcement_type, delay_deny
            }
        });
        let _ = enforcement_type;
        for rules in rules.iter().chain(&shadow_rules) {
            if asks_for_headers(rules) {
                return Err(cx.error("Found header rule, not supported by RBAC network filter"));
            }
        }
        let scope = joined(&joined("", &stat_prefix), "rbac.");
        Ok(NetworkFilter::Gate(Arc::new(Rbac {
            engine: Engine::build(("rules", rules), ("matcher", matcher), Place::Network, cx)?,
            shadow: Engine::build(
                ("shadow_rules", shadow_rules),
                ("shadow_matcher", shadow_matcher),
                Place::Network,
                cx,
            )?,
            enforced_stats: cx.server.stats.scope(&scope).block(),
            shadow_stats: cx
                .server
                .stats
                .scope(&joined(&scope, &shadow_rules_stat_prefix))
                .block(),
            policy_key: format!("{shadow_rules_stat_prefix}shadow_{POLICY_ID}"),
            result_key: format!("{shadow_rules_stat_prefix}shadow_{RESULT}"),
            continuous,
            delay: delay_deny.enabled_or(Duration::ZERO),
        })))
    }
}

/// Whether any rule is about headers, which connections have none of.
fn asks_for_headers(rules: &Rules) -> bool {
    let policies = || rules.policies.values();
    policies().flat_map(|p| &p.permissions).any(of_permission)
        || policies().flat_map(|p| &p.principals).any(of_principal)
}

fn of_permission(permission: &Permission) -> bool {
    match &permission.rule {
        Some(Rule::Header(_)) => true,
        Some(Rule::AndRules(set) | Rule::OrRules(set)) => set.rules.iter().any(of_permission),
        Some(Rule::NotRule(not)) => of_permission(not),
        _ => false,
    }
}

fn of_principal(principal: &Principal) -> bool {
    match &principal.identifier {
        Some(Identifier::Header(_)) => true,
        Some(Identifier::AndIds(set) | Identifier::OrIds(set)) => set.ids.iter().any(of_principal),
        Some(Identifier::NotId(not)) => of_principal(not),
        _ => false,
    }
}

struct Rbac {
    engine: Option<Engine>,
    shadow: Option<Engine>,
    enforced_stats: Stats<EnforcedStats>,
    shadow_stats: Stats<ShadowStats>,
    policy_key: String,
    result_key: String,
    /// Asked for every read, not only for the first one.
    continuous: bool,
    /// How long a denied connection is kept.
    delay: Option<Duration>,
}

impl GateFilter for Rbac {
    fn on_connection(self: Arc<Self>, _: Rc<Worker>, mut connection: Connection) -> LocalBoxFuture<'static, Gated> {
        if self.engine.is_none() && self.shadow.is_none() {
            return Box::pin(async { Gated::Pass(connection) });
        }
        let (stream, held) = hold(connection.stream, &connection.info.held);
        connection.stream = stream;
        let info = connection.info.clone();
        connection.guards.push(Box::pin(async move {
            loop {
                held.bytes().await;
                if !self.allows(&info) {
                    break;
                }
                match self.continuous {
                    true => held.pass(),
                    false => {
                        held.open();
                        pending::<()>().await;
                    }
                }
            }
            if let Some(delay) = self.delay {
                tokio::time::sleep(delay).await;
            }
        }));
        Box::pin(async { Gated::Pass(connection) })
    }
}

impl Rbac {
    fn allows(&self, info: &Rc<ConnectionInfo>) -> bool {
        let mut stream = StreamInfo::new(info.clone(), None);
        stream.metadata.clone_from(&info.metadata.borrow());
        let cx = MatchCx::stream(&stream);
        if let Some(shadow) = &self.shadow {
            let verdict = shadow.check(&cx);
            let stats = self.shadow_stats.local();
            match verdict.allowed {
                true => stats.shadow_allowed.inc(),
                false => stats.shadow_denied.inc(),
            }
            let text = |text: &str| Value {
                kind: Some(Kind::StringValue(text.to_owned())),
            };
            let mut metadata = info.metadata.borrow_mut();
            let fields = &mut metadata.entry(NAMESPACE.into()).or_default().fields;
            if let Some(policy) = verdict.policy {
                fields.insert(self.policy_key.clone(), text(policy));
            }
            let result = if verdict.allowed { "allowed" } else { "denied" };
            fields.insert(self.result_key.clone(), text(result));
        }
        let Some(engine) = &self.engine else {
            return true;
        };
        let verdict = engine.check(&cx);
        if let Some(hint) = verdict.log_hint {
            let mut metadata = info.metadata.borrow_mut();
            let fields = &mut metadata.entry("envoy.common".into()).or_default().fields;
            let hint = Value {
                kind: Some(Kind::BoolValue(hint)),
            };
            fields.insert("access_log_hint".into(), hint);
        }
        let stats = self.enforced_stats.local();
        match verdict.allowed {
            true => stats.allowed.inc(),
            false => {
                stats.denied.inc();
                *info.termination_details.borrow_mut() = Some(denial_details(verdict.policy.map(|p| &**p)));
            }
        }
        verdict.allowed
    }
}
