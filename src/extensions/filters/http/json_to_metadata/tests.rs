use xds_protos::{
    google::protobuf::value::Kind,
    load::{LoadOptions, Syntax, typed},
};

use super::{config::Config, filter::read_into};
use crate::{
    config::{BuildCx, ConfigResult},
    http::stream_info::Metadata,
    route::test_support::server,
};

fn build(rule: &str) -> ConfigResult<Config> {
    let server = server();
    let yaml = format!("request_rules: {{rules: [{rule}]}}");
    let proto = typed(&yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Config::build(proto, &mut BuildCx::new(&server))
}

fn value(kind: &str, body: &str) -> Option<Kind> {
    let rule = format!(
        "{{selectors: [{{key: a}}, {{key: b}}], on_present: {{metadata_namespace: ns, key: k, type: {kind}}}, on_missing: {{metadata_namespace: ns, key: k, value: missing}}}}"
    );
    let config = build(&rule).unwrap();
    let mut metadata = Metadata::new();
    assert!(read_into(
        config.request.as_ref().unwrap(),
        body.as_bytes(),
        &mut metadata
    ));
    metadata.get("ns")?.fields.get("k")?.kind.clone()
}

#[test]
fn values_are_of_their_type() {
    let text = |s: &str| Some(Kind::StringValue(s.to_owned()));
    assert_eq!(
        value("PROTOBUF_VALUE", r#"{"a":{"b":true}}"#),
        Some(Kind::BoolValue(true))
    );
    assert_eq!(value("STRING", r#"{"a":{"b":2.5}}"#), text("2.500000"));
    assert_eq!(value("STRING", r#"{"a":{"b":7}}"#), text("7"));
    assert_eq!(value("STRING", r#"{"a":{"b":""}}"#), None);
    assert_eq!(value("NUMBER", r#"{"a":{"b":"17"}}"#), Some(Kind::NumberValue(17.0)));
}

#[test]
fn what_is_not_there_or_no_value_is_missing() {
    for body in [
        "[1]",
        "1",
        r#"{"a":1}"#,
        r#"{"a":{}}"#,
        r#"{"a":{"b":{}}}"#,
        r#"{"a":{"b":[1]}}"#,
        r#"{"a":{"b":null}}"#,
    ] {
        let missing = Some(Kind::StringValue("missing".to_owned()));
        assert_eq!(value("PROTOBUF_VALUE", body), missing, "{body}");
    }
}

#[test]
fn rules_without_effect_are_refused() {
    assert!(build("{selectors: [{key: a}]}").is_err());
    assert!(build("{selectors: [{key: a}], on_missing: {key: k}}").is_err());
}
