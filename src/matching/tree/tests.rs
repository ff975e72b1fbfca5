//! What is expected was observed on Envoy 1.40.

use xds_protos::{
    google::protobuf::StringValue,
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::{
    config::unpack,
    route::test_support::{request, server, stream},
};

/// Actions are plain strings; every input is allowed but the subject of a certificate.
struct Words;

impl MatchTarget for Words {
    type Action = String;

    fn allows(&self, input: &str) -> Result<(), String> {
        match input.ends_with(".SubjectInput") {
            true => Err("cannot match on subjects".into()),
            false => Ok(()),
        }
    }

    fn action(&mut self, _: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<String> {
        unpack::<StringValue>(&config, cx).map(|v| v.value)
    }
}

const HEADER: &str = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3";

fn build(yaml: &str) -> ConfigResult<Matcher<String>> {
    let proto: Proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Matcher::build(proto, &mut Words, &mut BuildCx::new(&server()))
}

fn word(word: &str) -> String {
    format!(
        "{{action: {{name: a, typed_config: {{'@type': type.googleapis.com/google.protobuf.StringValue, value: {word}}}}}}}"
    )
}

fn header(name: &str) -> String {
    format!("{{name: i, typed_config: {{'@type': {HEADER}, header_name: {name}}}}}")
}

fn network(name: &str) -> String {
    format!("{{name: i, typed_config: {{'@type': {NETWORK}.{name}}}}}")
}

fn found(matcher: &Matcher<String>, headers: &[(&str, &str)]) -> String {
    let info = stream();
    let head = request("x", "/", headers);
    matcher
        .find(&MatchCx::request(&info, &head))
        .cloned()
        .unwrap_or_else(|| "-".into())
}

#[test]
fn a_nested_matcher_that_finds_nothing_does_not_end_the_search() {
    let (a, b) = (header("a"), header("b"));
    let matcher = build(&format!(
        "{{matcher_list: {{matchers: [
          {{predicate: {{single_predicate: {{input: {a}, value_match: {{prefix: x}}}}}},
            on_match: {{matcher: {{matcher_tree: {{input: {b}, exact_match_map: {{map: {{one: {}}}}}}}}}}}}},
          {{predicate: {{not_matcher: {{single_predicate: {{input: {a}, value_match: {{exact: nope}}}}}}}}, on_match: {}}}
        ]}}, on_no_match: {}}}",
        word("nested"),
        word("second"),
        word("none")
    ))
    .unwrap();
    assert_eq!(found(&matcher, &[("a", "xy"), ("b", "one")]), "nested");
    assert_eq!(found(&matcher, &[("a", "xy"), ("b", "two")]), "second");
    assert_eq!(found(&matcher, &[]), "second");
    assert_eq!(found(&matcher, &[("a", "nope")]), "none");
}

#[test]
fn the_longest_prefix_that_leads_somewhere_wins() {
    let (a, b) = (header("a"), header("b"));
    let matcher = build(&format!(
        "{{matcher_tree: {{input: {a}, prefix_match_map: {{map: {{
            /x: {}, /x/y: {{matcher: {{matcher_tree: {{input: {b}, exact_match_map: {{map: {{one: {}}}}}}}}}}}}}}}}}}}",
        word("short"),
        word("long")
    ))
    .unwrap();
    assert_eq!(found(&matcher, &[("a", "/x/y/z"), ("b", "one")]), "long");
    assert_eq!(found(&matcher, &[("a", "/x/y/z")]), "short");
    assert_eq!(found(&matcher, &[("a", "/")]), "-");
}

#[test]
fn addresses_are_found_by_their_longest_range() {
    let range = |address: &str, len: u32| format!("ranges: [{{address_prefix: {address}, prefix_len: {len}}}]");
    let matcher = build(&format!(
        "{{matcher_tree: {{input: {}, custom_match: {{name: c, typed_config: {{
            '@type': type.googleapis.com/xds.type.matcher.v3.IPMatcher, range_matchers: [
              {{{}, on_match: {}}}, {{{}, on_match: {}}}, {{{}, on_match: {}}}]}}}}}}}}",
        network("SourceIPInput"),
        range("10.0.0.0", 8),
        word("ten"),
        range("10.0.0.0", 16),
        word("sixteen"),
        range("11.0.0.1", 32),
        word("other")
    ))
    .unwrap();
    assert_eq!(found(&matcher, &[]), "sixteen");
}

#[test]
fn domains_are_found_by_name_then_by_wildcard() {
    let matcher = build(&format!(
        "{{matcher_tree: {{input: {}, custom_match: {{name: c, typed_config: {{
            '@type': type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher, domain_matchers: [
              {{domains: [a.b.c], on_match: {}}}, {{domains: ['*.b.c'], on_match: {}}}, {{domains: ['*'], on_match: {}}}]}}}}}}}}",
        header("sni"),
        word("name"),
        word("wild"),
        word("any")
    ))
    .unwrap();
    for (name, expected) in [
        ("A.b.c", "name"),
        ("x.b.c", "wild"),
        ("x.y.b.c", "wild"),
        ("b.c", "any"),
    ] {
        assert_eq!(found(&matcher, &[("sni", name)]), expected, "{name}");
    }
}

#[test]
fn what_is_not_there_matches_nothing() {
    for input in ["ServerNameInput", "NetworkNamespaceInput", "TransportProtocolInput"] {
        let matcher = build(&format!(
            "{{matcher_list: {{matchers: [{{predicate: {{single_predicate: {{input: {}, value_match: {{safe_regex: {{google_re2: {{}}, regex: '.*'}}}}}}}}, on_match: {}}}]}}}}",
            network(input),
            word("some")
        ))
        .unwrap();
        assert_eq!(found(&matcher, &[]), "-", "{input}");
    }
}

#[test]
fn inputs_that_the_target_does_not_allow_are_rejected() {
    let subject = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.ssl.v3.SubjectInput}}";
    let error = build(&format!(
        "{{matcher_tree: {{input: {subject}, exact_match_map: {{map: {{a: {}}}}}}}}}",
        word("x")
    ))
    .unwrap_err();
    assert_eq!(error.to_string(), "matcher_tree.input: cannot match on subjects");
}
