use xds_protos::{
    google::protobuf::value::Kind,
    load::{LoadOptions, Syntax, typed},
};

use super::config::Config;
use crate::{
    config::{BuildCx, ConfigResult},
    route::test_support::server,
};

fn build(rule: &str) -> ConfigResult<Config> {
    let server = server();
    let yaml = format!("request_rules: [{rule}]");
    let proto = typed(&yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Config::build(proto, &mut BuildCx::new(&server))
}

fn value(present: &str, header: &str) -> Option<Kind> {
    let config = build(&format!("{{header: h, on_header_present: {present}}}")).unwrap();
    let assignment = config.request[0].present.as_ref().unwrap();
    assignment.value(header.as_bytes()).and_then(|v| v.kind)
}

#[test]
fn values_have_types() {
    let text = |s: &str| Some(Kind::StringValue(s.to_owned()));
    assert_eq!(value("{key: k}", "v"), text("v"));
    assert_eq!(value("{key: k, value: fixed}", "v"), text("fixed"));
    assert_eq!(value("{key: k}", ""), None);
    assert_eq!(value("{key: k}", &"x".repeat(8192)), None);
    assert_eq!(value("{key: k, type: NUMBER}", "1.5"), Some(Kind::NumberValue(1.5)));
    assert_eq!(value("{key: k, type: NUMBER}", "one"), None);
    assert_eq!(value("{key: k, encode: BASE64}", "aGVsbG8="), text("hello"));
    assert_eq!(value("{key: k, encode: BASE64}", "!!"), None);
    let rewrite = "{key: k, regex_value_rewrite: {pattern: {regex: '^/(\\w+)/.*$'}, substitution: '\\1'}}";
    assert_eq!(value(rewrite, "/a/b"), text("a"));
    assert_eq!(value(rewrite, "b"), text("b"));
}

#[test]
fn rules_that_say_nothing_are_refused() {
    for bad in [
        "{header: h}",
        "{on_header_present: {key: k}}",
        "{header: h, cookie: c, on_header_present: {key: k}}",
        "{cookie: c, on_header_present: {key: k}, remove: true}",
        "{header: h, on_header_missing: {key: k}}",
    ] {
        assert!(build(bad).is_err(), "{bad}");
    }
}
