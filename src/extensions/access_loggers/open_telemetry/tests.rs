use http::{HeaderMap, StatusCode};
use xds_protos::load::{LoadOptions, Syntax, typed};

use super::*;
use crate::{
    http::ResponseHead,
    route::test_support::{request, server, stream},
};

fn proto(yaml: &str) -> Proto {
    typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap()
}

fn format(yaml: &str) -> ConfigResult<RecordFormat> {
    let proto = proto(yaml);
    RecordFormat::build(
        proto.body,
        proto.attributes,
        &Default::default(),
        &mut BuildCx::new(&server()),
    )
}

#[test]
fn a_record_as_envoy_makes_it() {
    let format = format(
        "{body: {string_value: '%REQ(:PATH)% line'}, attributes: {values: [
            {key: code, value: {string_value: '%RESPONSE_CODE%'}},
            {key: list, value: {array_value: {values: [{string_value: 'a%PROTOCOL%'}]}}},
            {key: kv, value: {kvlist_value: {values: [{key: k, value: {string_value: v}}]}}},
            {key: missing, value: {string_value: '%REQ(X-NO)%'}}]}}",
    )
    .unwrap();
    let mut info = stream();
    info.response_code = Some(StatusCode::OK);
    info.trace_id = Some("0102ff".into());
    let head = request("x", "/one", &[]);
    let response = ResponseHead {
        headers: HeaderMap::new(),
        ..ResponseHead::new(StatusCode::OK)
    };
    let record = format.record(&LogCx {
        request: Some(&head),
        response: Some(&response),
        info: &info,
    });
    assert!(record.time_unix_nano > 0);
    assert_eq!(record.trace_id, [1, 2, 255]);
    // The bytes behind the time are those that Envoy sends.
    let bytes = record.encode_to_vec();
    let expected: &[u8] =
        b"*\x0b\n\x09/one line2\r\n\x04code\x12\x05\n\x032002\x17\n\x04list\x12\x0f*\r\n\x0b\n\taHTTP/1.1\
        2\x12\n\x02kv\x12\x0c2\n\n\x08\n\x01k\x12\x03\n\x01v2\x0e\n\x07missing\x12\x03\n\x01-";
    assert_eq!(bytes.get(9..9 + expected.len()).unwrap(), expected);
}

#[test]
fn only_texts_lists_and_maps() {
    for yaml in ["{body: {int_value: 3}}", "{attributes: {values: [{key: a}]}}"] {
        let error = format(yaml).unwrap_err();
        assert!(error.reason().starts_with("Only string values"), "{error}");
    }
    let error = format("{body: {string_value: '%NOPE%'}}").unwrap_err();
    assert_eq!(error.to_string(), "body: Not supported field in StreamInfo: NOPE");
}

#[test]
fn one_transport() {
    for (yaml, reason) in [
        ("{}", "OpenTelemetry access logger requires one of"),
        (
            "{grpc_service: {envoy_grpc: {cluster_name: c}}, common_config: {log_name: x, grpc_service: {envoy_grpc: {cluster_name: c}}}}",
            "OpenTelemetry access logger can only have one transport",
        ),
    ] {
        let error = Factory.build(proto(yaml), &mut BuildCx::new(&server())).err().unwrap();
        assert!(error.reason().starts_with(reason), "{error}");
    }
}

#[test]
fn builtin_labels_come_in_order() {
    let node = Node {
        id: "n".into(),
        cluster: "c".into(),
        ..Node::default()
    };
    let keys: Vec<String> = builtin_labels("l", &node).into_iter().map(|p| p.key).collect();
    assert_eq!(keys, ["log_name", "zone_name", "cluster_name", "node_name"]);
}
