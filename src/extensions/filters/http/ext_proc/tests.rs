use http::HeaderMap;
use xds_protos::{
    envoy::{
        config::{common::mutation_rules::v3::HeaderMutationRules, core::v3::HeaderValueOption},
        service::ext_proc::v3::HeaderMutation,
    },
    load::{LoadOptions, Syntax, typed},
};

use super::mutation::headers;
use crate::{
    config::BuildCx,
    extensions::filters::{
        common::mutation_rules::{Rules, Verdict},
        http::view::View,
    },
    route::test_support::{request, server},
};

fn rules(yaml: &str) -> Rules {
    let server = server();
    let proto: HeaderMutationRules = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Rules::build(proto, &mut BuildCx::new(&server)).unwrap()
}

#[test]
fn routing_and_internal_headers_are_not_for_the_service_unless_allowed() {
    let rules_of_default = Rules::default();
    for name in ["host", ":authority", ":scheme", ":method", "x-envoy-retry-on"] {
        assert_eq!(rules_of_default.check(name, false), Verdict::Ignored, "{name}");
    }
    for name in [":path", "x-other", "content-type"] {
        assert_eq!(rules_of_default.check(name, false), Verdict::Allowed, "{name}");
    }
    let open = rules("{allow_all_routing: true, allow_envoy: true}");
    for name in ["host", ":method", "x-envoy-retry-on"] {
        assert_eq!(open.check(name, false), Verdict::Allowed, "{name}");
    }
    assert_eq!(open.check("host", true), Verdict::Ignored);
}

#[test]
fn expressions_come_before_the_flags() {
    let rules = rules(
        "{disallow_all: true, allow_expression: {regex: 'x-.*'}, disallow_expression: {regex: 'x-secret'}, disallow_is_error: true}",
    );
    assert_eq!(rules.check("x-a", false), Verdict::Allowed);
    assert_eq!(rules.check("x-secret", false), Verdict::Error);
    assert_eq!(rules.check("other", false), Verdict::Error);
}

fn mutation(yaml: &str) -> HeaderMutation {
    typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap()
}

#[test]
fn headers_are_removed_then_set_and_what_is_not_allowed_is_counted() {
    let mut head = request("h", "/", &[("x-a", "1"), ("x-b", "2")]);
    let mutation = mutation("{remove_headers: [x-a, host], set_headers: [{header: {key: X-A, raw_value: Mg==}}]}");
    let mut rejected = 0;
    headers(
        &mutation,
        View::request(&mut head),
        &Rules::default(),
        false,
        false,
        || rejected += 1,
    )
    .unwrap();
    assert_eq!((head.headers.get("x-a").unwrap(), rejected), (&"2".parse().unwrap(), 1));
    assert_eq!(head.host(), "h");
}

#[test]
fn a_value_that_no_header_can_have_is_an_error() {
    let mut trailers = HeaderMap::new();
    let mut mutation = HeaderMutation::default();
    let mut option = HeaderValueOption::default();
    let header = option.header.get_or_insert_default();
    (header.key, header.raw_value) = ("x-a".into(), b"a\nb".to_vec());
    mutation.set_headers.push(option);
    let error = headers(
        &mutation,
        View::trailers(&mut trailers),
        &Rules::default(),
        false,
        false,
        || {},
    );
    assert_eq!(error, Err("header_mutation_set_contains_invalid_character".to_owned()));
}
