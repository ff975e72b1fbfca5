use super::*;
use crate::load::{self, LoadOptions, Syntax};

fn dynamic(message: &str, yaml: &str) -> DynamicMessage {
    load::from_str(yaml, Syntax::Yaml, message, &LoadOptions::default())
        .unwrap()
        .message
}

fn compact(message: &str, yaml: &str) -> String {
    json(
        &dynamic(message, yaml),
        PrintOptions {
            pretty: false,
            ..Default::default()
        },
    )
}

#[test]
fn fields_come_in_the_order_of_their_numbers_with_one_space_an_indent() {
    let text = "{connect_timeout: 1s, name: c, typed_extension_protocol_options: {b: {}, a: {}}, health_checks: [{}]}";
    let printed = json(
        &dynamic("envoy.config.cluster.v3.Cluster", text),
        PrintOptions::default(),
    );
    let expected = "{\n \"name\": \"c\",\n \"connect_timeout\": \"1s\",\n \"health_checks\": [\n  {}\n ],\n \
                    \"typed_extension_protocol_options\": {\n  \"a\": {},\n  \"b\": {}\n }\n}";
    assert_eq!(printed, expected);
}

#[test]
fn an_empty_message_is_two_braces() {
    assert_eq!(compact("envoy.config.core.v3.Locality", "{}"), "{}");
    assert_eq!(
        json(&dynamic("envoy.config.core.v3.Locality", "{}"), PrintOptions::default()),
        "{}"
    );
}

#[test]
fn an_any_begins_with_its_type() {
    let any = |text: &str| compact("google.protobuf.Any", text);
    let locality = "{zone: z, \"@type\": type.googleapis.com/envoy.config.core.v3.Locality}";
    assert_eq!(
        any(locality),
        "{\"@type\":\"type.googleapis.com/envoy.config.core.v3.Locality\",\"zone\":\"z\"}"
    );
    let duration = "{\"@type\": type.googleapis.com/google.protobuf.Duration, value: 1s}";
    assert_eq!(
        any(duration),
        "{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"1s\"}"
    );
    assert_eq!(any("{}"), "{}");

    let unknown = crate::google::protobuf::Any {
        type_url: "a.com/foo.Bar".into(),
        value: vec![1, 2, 3, 4],
    };
    let unknown = json(
        &dynamic::from_typed(&unknown).unwrap(),
        PrintOptions {
            pretty: false,
            ..Default::default()
        },
    );
    assert_eq!(unknown, "{\"@type\":\"a.com/foo.Bar\",\"value\":\"AQIDBA==\"}");
}

#[test]
fn structs_and_wrappers_are_what_they_hold() {
    let node = "{metadata: {a: [1, 'x', true, null, {}], b: 0x10}}";
    let printed = compact("envoy.config.core.v3.Node", node);
    assert_eq!(printed, "{\"metadata\":{\"a\":[1,\"x\",true,null,{}],\"b\":16}}");

    let cluster = "{per_connection_buffer_limit_bytes: 0, type: STRICT_DNS, lb_policy: 77}";
    let printed = compact("envoy.config.cluster.v3.Cluster", cluster);
    assert_eq!(
        printed,
        "{\"type\":\"STRICT_DNS\",\"per_connection_buffer_limit_bytes\":0,\"lb_policy\":77}"
    );

    assert_eq!(
        compact("google.protobuf.UInt64Value", "{value: 18446744073709551615}"),
        "\"18446744073709551615\""
    );
}

#[test]
fn defaults_are_printed_on_request() {
    let options = PrintOptions {
        always_print_defaults: true,
        pretty: false,
        ..Default::default()
    };
    let printed = json(&dynamic("envoy.config.core.v3.Metadata", "{}"), options);
    assert_eq!(printed, "{\"filter_metadata\":{},\"typed_filter_metadata\":{}}");
    let printed = json(
        &dynamic("envoy.config.core.v3.BuildVersion", "{version: {major_number: 1}}"),
        options,
    );
    assert_eq!(
        printed,
        "{\"version\":{\"major_number\":1,\"minor_number\":0,\"patch\":0}}"
    );
}

#[test]
fn sensitive_fields_are_redacted() {
    let secret = "{name: s, tls_certificate: {certificate_chain: {filename: /c}, private_key: {inline_string: KEY}, \
                  password: {inline_bytes: aGk=}}}";
    let name = "envoy.extensions.transport_sockets.tls.v3.Secret";
    let printed = compact(name, secret);
    assert_eq!(
        printed,
        "{\"name\":\"s\",\"tls_certificate\":{\"certificate_chain\":{\"filename\":\"/c\"},\"private_key\":\
         {\"inline_string\":\"[redacted]\"},\"password\":{\"inline_bytes\":\"W3JlZGFjdGVkXQ==\"}}}"
    );
    let open = PrintOptions {
        redact_sensitive: false,
        pretty: false,
        ..Default::default()
    };
    assert!(json(&dynamic(name, secret), open).contains("\"KEY\""));
}

#[test]
fn a_secret_in_an_any_or_a_typed_struct_is_redacted_too() {
    let url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let secret = "generic_secret: {secret: {inline_string: KEY}}";
    let plain = format!("{{\"@type\": {url}, {secret}}}");
    let wrapped = format!("{{\"@type\": a.com/udpa.type.v1.TypedStruct, type_url: {url}, value: {{{secret}}}}}");
    for text in [plain, wrapped] {
        let printed = compact("google.protobuf.Any", &text);
        assert!(printed.contains("[redacted]") && !printed.contains("KEY"), "{printed}");
    }
}

#[test]
fn strings_are_escaped_as_envoy_escapes_them() {
    let printed = |text: &str| {
        let mut out = String::new();
        scalar::string(&mut out, text).unwrap();
        out
    };
    assert_eq!(
        printed("é<>&\u{1}\"\\/\n\u{7f}"),
        "\"é\\u003c\\u003e&\\u0001\\\"\\\\/\\n\\u007f\""
    );
    assert_eq!(
        printed("\u{2028}\u{feff}\u{1d173}😀"),
        "\"\\u2028\\ufeff\\ud834\\udd73😀\""
    );
}

#[test]
fn bytes_are_padded_base64() {
    for (bytes, text) in [
        (&b""[..], "\"\""),
        (b"h", "\"aA==\""),
        (b"hi", "\"aGk=\""),
        (b"hi\xff", "\"aGn/\""),
    ] {
        let mut out = String::new();
        scalar::bytes(&mut out, bytes).unwrap();
        assert_eq!(out, text);
    }
}

#[test]
fn numbers_print_as_c_prints_them() {
    for (value, text) in [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (33.3, "33.3"),
        (1234567.125, "1234567.125"),
        (100.0, "100"),
        (1e15, "1e+15"),
        (123456789012345.0, "123456789012345"),
        (1e21, "1e+21"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (f64::NAN, "\"NaN\""),
        (f64::NEG_INFINITY, "\"-Infinity\""),
    ] {
        assert_eq!(scalar::double(value), text);
    }
    assert_eq!(scalar::float(0.1), "0.1");
    assert_eq!(scalar::float(16_777_217.0), "16777216");
}

#[test]
fn times_have_no_or_three_or_six_or_nine_decimals() {
    for (seconds, nanos, text) in [
        (1, 0, "1s"),
        (0, 250_000_000, "0.250s"),
        (1, 1_000, "1.000001s"),
        (0, 1, "0.000000001s"),
        (0, -500_000_000, "-0.500s"),
        (-1, -1, "-1.000000001s"),
    ] {
        assert_eq!(scalar::duration(seconds, nanos), text);
    }
    assert_eq!(scalar::timestamp(0, 0), "1970-01-01T00:00:00Z");
    assert_eq!(
        scalar::timestamp(1_709_202_600, 250_000_000),
        "2024-02-29T10:30:00.250Z"
    );
    assert_eq!(scalar::timestamp(-62_135_596_800, 0), "0001-01-01T00:00:00Z");
}

#[test]
fn what_is_printed_reads_back_as_the_same_message() {
    let name = "envoy.config.bootstrap.v3.Bootstrap";
    let message = dynamic(
        name,
        "{node: {id: a, metadata: {x: [1, {}]}}, stats_flush_interval: 0.5s, static_resources: {clusters: [{name: c, \
         load_assignment: {cluster_name: c, endpoints: [{priority: 1, load_balancing_weight: 3}]}}]}}",
    );
    let printed = json(&message, PrintOptions::default());
    let again = load::from_str(&printed, Syntax::Json, name, &LoadOptions::default())
        .unwrap()
        .message;
    assert_eq!(again, message);
}
