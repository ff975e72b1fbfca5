//! One stream under access control.

use std::sync::Arc;

use http::StatusCode;
use xds_protos::google::protobuf::{Value, value::Kind};

use super::config::{Config, Keys, RouteRules, Rules};
use crate::{
    extensions::filters::common::rbac::{Verdict, denial_details},
    http::{
        LocalReply, RequestHead, StreamInfo,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    matching::tree::MatchCx,
};

/// The namespace of what is noted.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// Where `LOG` actions leave their hint.
const COMMON: &str = "envoy.common";

/// The filter's configuration.
pub(super) struct RbacFilter(pub Arc<Config>);

impl HttpFilterConfig for RbacFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Config>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let config = &*self.0;
        let rules: Arc<Rules> = match cx.route_config::<RouteRules>() {
            Some(of_route) => of_route.0.clone(),
            None => config.rules.clone(),
        };
        if let Some(shadow) = &rules.shadow {
            let verdict = shadow.check(&MatchCx::request(&cx.info, head));
            let stats = config.shadow.local();
            match verdict.allowed {
                true => stats.shadow_allowed.inc(),
                false => stats.shadow_denied.inc(),
            }
            if let (true, Some(policy)) = (rules.per_policy, verdict.policy) {
                config.shadow_policies.count(policy, verdict.allowed);
            }
            note(&mut cx.info, &rules.shadow_keys, verdict);
        }
        let Some(engine) = &rules.engine else {
            return Step::Continue;
        };
        let verdict = engine.check(&MatchCx::request(&cx.info, head));
        if let Some(hint) = verdict.log_hint {
            let common = cx.info.metadata.entry(COMMON.into()).or_default();
            common
                .fields
                .insert("access_log_hint".into(), value(Kind::BoolValue(hint)));
        }
        if let (true, Some(policy)) = (rules.per_policy, verdict.policy) {
            config.enforced_policies.count(policy, verdict.allowed);
        }
        note(&mut cx.info, &rules.enforced_keys, verdict);
        let stats = config.enforced.local();
        if verdict.allowed {
            stats.allowed.inc();
            return Step::Continue;
        }
        stats.denied.inc();
        Step::Reply(Box::new(LocalReply::new(
            StatusCode::FORBIDDEN,
            "RBAC: access denied",
            denial_details(verdict.policy.map(|p| &**p)),
        )))
    }
}

/// Leaves a decision in the dynamic metadata.
fn note(info: &mut StreamInfo, keys: &Keys, verdict: Verdict<'_>) {
    let fields = &mut info.metadata.entry(NAMESPACE.into()).or_default().fields;
    if let Some(policy) = verdict.policy {
        fields.insert(keys.policy.clone(), value(Kind::StringValue(policy.to_string())));
    }
    let result = if verdict.allowed { "allowed" } else { "denied" };
    fields.insert(keys.result.clone(), value(Kind::StringValue(result.into())));
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
