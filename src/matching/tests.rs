//! What is expected was observed on Envoy 1.40.

use http::HeaderMap;
use xds_protos::{
    envoy::{config::route::v3::HeaderMatcher as ProtoHeader, r#type::matcher::v3 as proto},
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::{config::BuildCx, route::test_support::server};

fn header(yaml: &str) -> HeaderMatcher {
    let proto: ProtoHeader = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    HeaderMatcher::build(proto, &mut BuildCx::new(&server())).unwrap()
}

#[test]
fn header_matchers() {
    const VALUES: [Option<&[u8]>; 9] = [
        None,
        Some(b""),
        Some(b"a"),
        Some(b"ab"),
        Some(b"-5"),
        Some(b"5"),
        Some(b"ABc"),
        Some(b"2"),
        Some(b"2x"),
    ];
    // One column for each value, in order.
    for (yaml, expected) in [
        ("{name: x, string_match: {exact: a}, invert_match: true}", ".y.yyyyyy"),
        (
            "{name: x, string_match: {exact: a}, invert_match: true, treat_missing_header_as_empty: true}",
            "yy.yyyyyy",
        ),
        (
            "{name: x, string_match: {exact: ''}, treat_missing_header_as_empty: true}",
            "yy.......",
        ),
        ("{name: x, present_match: true}", ".yyyyyyyy"),
        ("{name: x, present_match: false}", "y........"),
        ("{name: x, present_match: true, invert_match: true}", "y........"),
        ("{name: x, present_match: false, invert_match: true}", ".yyyyyyyy"),
        (
            "{name: x, present_match: true, treat_missing_header_as_empty: true}",
            "yyyyyyyyy",
        ),
        (
            "{name: x, present_match: false, treat_missing_header_as_empty: true}",
            ".........",
        ),
        ("{name: x, range_match: {start: -10, end: 0}}", "....y...."),
        (
            "{name: x, range_match: {start: -10, end: 0}, invert_match: true}",
            ".yyy.yyyy",
        ),
        (
            "{name: x, range_match: {start: -1, end: 3}, treat_missing_header_as_empty: true}",
            ".......y.",
        ),
        ("{name: x, string_match: {safe_regex: {regex: 'a|b.*'}}}", "..y......"),
        ("{name: x, string_match: {prefix: aB, ignore_case: true}}", "...y..y.."),
        ("{name: x}", ".yyyyyyyy"),
        ("{name: x, contains_match: b}", "...y....."),
        ("{name: x, suffix_match: b}", "...y....."),
    ] {
        let matcher = header(yaml);
        let got: String = VALUES
            .iter()
            .map(|v| if matcher.matches_value(*v) { 'y' } else { '.' })
            .collect();
        assert_eq!(got, expected, "{yaml}");
    }
}

#[test]
fn several_values_are_matched_one_by_one() {
    let mut headers = HeaderMap::new();
    headers.append("x", "a".parse().unwrap());
    headers.append("x", "b".parse().unwrap());
    assert!(header("{name: x, string_match: {exact: b}}").matches_map(&headers));
    assert!(!header("{name: x, string_match: {exact: 'a,b'}}").matches_map(&headers));
    assert!(!header("{name: x, string_match: {exact: a}, invert_match: true}").matches_map(&headers));
}

fn regex(pattern: &str) -> RegexMatcher {
    let proto = proto::RegexMatcher {
        regex: pattern.to_owned(),
        engine_type: None,
    };
    RegexMatcher::build(proto, &mut BuildCx::new(&server())).unwrap()
}

#[test]
fn regular_expressions_are_re2s() {
    for (pattern, text, expected) in [
        ("a|ab", "ab", true),
        ("a", "ab", false),
        (r"\d+", "12", true),
        (r"\d+", "\u{664}", false),
        (r"\w+", "é", false),
        (r"[\w.]+", "a.b_1", true),
        (r"[^\s]+", "a b", false),
        ("[a[b]+", "[ab", true),
        ("[]a]+", "]a", true),
        ("[a&&b]+", "&a", true),
        ("[[:digit:]x]+", "1x", true),
        (r"\Qa.b\E+", "a.bb", true),
        (r"\Qa.b\E", "axb", false),
        ("a{,2}", "a{,2}", true),
        ("a{2}", "aa", true),
        ("{x}", "{x}", true),
        (".", "\n", false),
        ("(?i)abc", "ABC", true),
        (r"/v\d\b/x", "/v1/x", true),
    ] {
        assert_eq!(regex(pattern).matches(text.as_bytes()), expected, "{pattern} on {text}");
    }
}

#[test]
fn substitutions_name_groups_by_number() {
    let proto = proto::RegexMatchAndSubstitute {
        pattern: Some(proto::RegexMatcher {
            regex: "([a-z])([0-9])".to_owned(),
            engine_type: None,
        }),
        substitution: r"\2\1\\<\0>$1".to_owned(),
    };
    let substitution = RegexSubstitution::build(proto, &mut BuildCx::new(&server())).unwrap();
    assert_eq!(substitution.replace_all(b"a1-b2-").as_ref(), br"1a\<a1>$1-2b\<b2>$1-");
    assert_eq!(substitution.replace_all(b"--").as_ref(), b"--");
}

#[test]
fn values() {
    let value = |yaml: &str| {
        let proto: proto::ValueMatcher = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
        ValueMatcher::build(proto, &mut BuildCx::new(&server())).unwrap()
    };
    use xds_protos::google::protobuf::{ListValue, Value, value::Kind};
    let of = |kind: Kind| Value { kind: Some(kind) };
    let list = of(Kind::ListValue(ListValue {
        values: vec![of(Kind::NumberValue(1.0)), of(Kind::StringValue("x".into()))],
    }));
    assert!(value("{list_match: {one_of: {string_match: {exact: 'x'}}}}").matches(Some(&list)));
    assert!(!value("{list_match: {one_of: {string_match: {exact: 'z'}}}}").matches(Some(&list)));
    assert!(value("{present_match: true}").matches(Some(&list)));
    // As in Envoy, where it matches neither way.
    assert!(!value("{present_match: false}").matches(None));
    assert!(!value("{present_match: false}").matches(Some(&list)));
    assert!(
        value("{or_match: {value_matchers: [{bool_match: true}, {double_match: {exact: 2}}]}}")
            .matches(Some(&of(Kind::NumberValue(2.0))))
    );
    assert!(!value("{double_match: {range: {start: 0, end: 2}}}").matches(Some(&of(Kind::NumberValue(2.0)))));
}

#[test]
fn query_parameters_are_not_decoded() {
    assert_eq!(query_parameter("y=1&x=a%20b&x=2", "x"), Some("a%20b"));
    assert_eq!(query_parameter("x", "x"), Some(""));
    assert_eq!(query_parameter("xy=1", "x"), None);
}
