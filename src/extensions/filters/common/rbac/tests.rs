//! What is expected was observed on Envoy 1.40.

use xds_protos::{
    envoy::config::rbac::v3::Rbac,
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::{
    config::{BuildCx, ConfigResult},
    matching::tree::MatchCx,
    route::test_support::{request, server, stream},
};

fn engine(yaml: &str) -> ConfigResult<Engine> {
    let proto: Rbac = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    let engine = Engine::build(
        ("rules", Some(proto)),
        ("matcher", None),
        Place::Http,
        &mut BuildCx::new(&server()),
    );
    engine.map(Option::unwrap)
}

fn rule(permission: &str, principal: &str) -> ConfigResult<Engine> {
    engine(&format!(
        "{{policies: {{p: {{permissions: [{permission}], principals: [{principal}]}}}}}}"
    ))
}

/// The client is 10.0.0.1:1000, the listener 10.0.0.9:80, there is no TLS.
fn allows(engine: &Engine, path: &str) -> bool {
    engine
        .check(&MatchCx::request(&stream(), &request("x", path, &[("x-a", "1")])))
        .allowed
}

#[test]
fn permissions() {
    for (permission, expected) in [
        ("{any: true}", true),
        ("{not_rule: {any: true}}", false),
        ("{and_rules: {rules: [{any: true}, {destination_port: 80}]}}", true),
        ("{and_rules: {rules: [{any: true}, {destination_port: 81}]}}", false),
        (
            "{or_rules: {rules: [{destination_port: 81}, {destination_port_range: {start: 80, end: 81}}]}}",
            true,
        ),
        ("{destination_port_range: {start: 70, end: 80}}", false),
        ("{destination_ip: {address_prefix: 10.0.0.9, prefix_len: 32}}", true),
        ("{destination_ip: {address_prefix: '::', prefix_len: 0}}", false),
        ("{url_path: {path: {exact: /a}}}", true),
        ("{url_path: {path: {exact: '/a?q=1'}}}", false),
        ("{header: {name: x-a, string_match: {exact: '1'}}}", true),
        (
            "{header: {name: x-b, string_match: {exact: '1'}, invert_match: true}}",
            false,
        ),
        ("{requested_server_name: {exact: ''}}", true),
        (
            "{metadata: {filter: f, path: [{key: k}], value: {present_match: true}}}",
            false,
        ),
        (
            "{sourced_metadata: {metadata_matcher: {filter: f, path: [{key: k}], value: {present_match: true}}, metadata_source: ROUTE}}",
            false,
        ),
    ] {
        let engine = rule(permission, "{any: true}").unwrap();
        assert_eq!(allows(&engine, "/a?q=1"), expected, "{permission}");
    }
}

#[test]
fn principals() {
    for (principal, expected) in [
        ("{authenticated: {}}", false),
        ("{not_id: {authenticated: {principal_name: {prefix: x}}}}", true),
        ("{source_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}", true),
        ("{direct_remote_ip: {address_prefix: 10.0.0.1, prefix_len: 32}}", true),
        ("{remote_ip: {address_prefix: 10.0.0.2, prefix_len: 32}}", false),
        (
            "{and_ids: {ids: [{any: true}, {or_ids: {ids: [{header: {name: x-a, present_match: true}}]}}]}}",
            true,
        ),
        ("{filter_state: {key: k, string_match: {prefix: v}}}", false),
        (
            "{custom: {name: m, typed_config: {'@type': type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config, any_validated_client_certificate: true}}}",
            false,
        ),
    ] {
        let engine = rule("{any: true}", principal).unwrap();
        assert_eq!(allows(&engine, "/"), expected, "{principal}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_rejected() {
    for (permission, principal, reason) in [
        (
            "{matcher: {name: m, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty}}}",
            "{any: true}",
            "Didn't find a registered implementation for 'm' with type URL: 'google.protobuf.Empty'",
        ),
        (
            "{any: true}",
            "{custom: {name: c, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty}}}",
            "Didn't find a registered implementation for 'c' with type URL: 'google.protobuf.Empty'",
        ),
        (
            "{any: true}",
            "{source_ip: {address_prefix: 1.2.3}}",
            "malformed IP address: 1.2.3",
        ),
        (
            "{destination_port_range: {start: 5, end: 5}}",
            "{any: true}",
            "range start 5 cannot be greater or equal than range end 5",
        ),
    ] {
        let error = rule(permission, principal).unwrap_err();
        assert_eq!(error.reason(), reason);
    }
}

#[test]
fn actions() {
    let policies = "policies: {b: {permissions: [{url_path: {path: {prefix: /b}}}], principals: [{any: true}]}, \
                    a: {permissions: [{url_path: {path: {prefix: /b/a}}}], principals: [{any: true}]}}";
    for (action, yes, no) in [("ALLOW", true, false), ("DENY", false, true), ("LOG", true, true)] {
        let engine = engine(&format!("{{action: {action}, {policies}}}")).unwrap();
        assert_eq!((allows(&engine, "/b"), allows(&engine, "/x")), (yes, no), "{action}");
        // Policies are asked in the order of their names.
        let verdict = (stream(), request("x", "/b/a", &[]));
        let verdict = engine.check(&MatchCx::request(&verdict.0, &verdict.1));
        assert_eq!(verdict.policy.map(|p| &**p), Some("a"));
        assert_eq!(verdict.log_hint, (action == "LOG").then_some(true));
    }
}

#[test]
fn names() {
    assert_eq!(stat_prefix("http.x.rbac.", ""), "http.x.rbac.");
    assert_eq!(stat_prefix("http.x.rbac.", "a_"), "http.x.rbac.a_.");
    assert_eq!(stat_prefix("http.x.rbac.", "a."), "http.x.rbac.a.");
    assert_eq!(
        denial_details(Some("a b\tc")),
        "rbac_access_denied_matched_policy[a_b_c]"
    );
    assert_eq!(denial_details(None), "rbac_access_denied_matched_policy[none]");
}
