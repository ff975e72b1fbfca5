use std::io::Write;

use super::*;
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::core::v3::Node as EnvoyNode;
use crate::google::protobuf::value::Kind as ValueKind;

fn bootstrap(text: &str, syntax: Syntax) -> Result<Bootstrap, LoadErrors> {
    typed(text, syntax, &LoadOptions::default())
}

fn yaml(text: &str) -> Result<Bootstrap, LoadErrors> {
    bootstrap(text, Syntax::Yaml)
}

fn node(text: &str) -> EnvoyNode {
    typed(text, Syntax::Yaml, &LoadOptions::default()).unwrap()
}

fn cluster(text: &str) -> Result<Cluster, LoadErrors> {
    typed(text, Syntax::Yaml, &LoadOptions::default())
}

/// The first error's place, path and problem.
fn first_error<T: std::fmt::Debug>(result: Result<T, LoadErrors>) -> (u32, u32, String, Problem) {
    let error = result.unwrap_err().errors.remove(0);
    (error.line, error.column, error.path, error.problem)
}

#[test]
fn plain_scalars_have_yaml_1_1_types() {
    for text in [
        "1.5",
        "1e3",
        ".inf",
        "2024-01-01",
        "fAlse",
        "\"123\"",
        "'yes'",
        "! 123",
        "08",
        "1_000",
        "0o10",
    ] {
        assert!(yaml(&format!("node: {{id: {text}}}")).is_ok(), "{text} is a string");
    }
    for text in [
        "123",
        "0x10",
        "010",
        "+5",
        "yes",
        "Y",
        "on",
        "TRUE",
        "off",
        "!!str 123",
        "!foo 123",
        "!!str \"123\"",
    ] {
        assert!(yaml(&format!("node: {{id: {text}}}")).is_err(), "{text} is no string");
    }
    for text in ["", "null", "~", "Null", "NULL"] {
        assert_eq!(node(&format!("{{id: {text}}}")).id, "", "{text} is null");
    }
}

#[test]
fn booleans_may_be_spelled_out_and_quoted() {
    for (text, value) in [
        ("yes", true),
        ("On", true),
        ("fAlse", false),
        ("\"1\"", true),
        ("'N'", false),
        ("null", false),
    ] {
        assert_eq!(
            yaml(&format!("enable_dispatcher_stats: {text}"))
                .unwrap()
                .enable_dispatcher_stats,
            value,
            "{text}"
        );
    }
    assert!(yaml("enable_dispatcher_stats: 1").is_err());
    assert!(yaml("enable_dispatcher_stats: maybe").is_err());
}

#[test]
fn integers_have_the_values_that_envoy_reads() {
    let limit = |text: &str| {
        let cluster = cluster(&format!("per_connection_buffer_limit_bytes: {text}"))?;
        Ok::<_, LoadErrors>(cluster.per_connection_buffer_limit_bytes.map(|limit| limit.value))
    };
    let read = [
        ("5", 5),
        ("0x10", 16),
        ("010", 8),
        ("\"010\"", 10),
        ("08", 8),
        ("\"0x1p4\"", 16),
        ("5.0", 5),
        ("1e2", 100),
        ("{value: 5}", 5),
        ("+5", 5),
        ("\"-0\"", 0),
        ("4294967295", u32::MAX),
    ];
    for (text, value) in read {
        assert_eq!(limit(text).unwrap(), Some(value), "{text}");
    }
    assert_eq!(limit("null").unwrap(), None);
    for text in [
        "-1",
        "4294967296",
        "99999999999",
        "5.5",
        "\" 5\"",
        "\"\"",
        "0o10",
        "1_000",
        "1e300",
        ".nan",
        "[]",
    ] {
        assert!(limit(text).is_err(), "{text}");
    }
}

#[test]
fn large_integers_keep_every_digit() {
    let text = "layered_runtime: {layers: [{name: a, static_layer: {big: 9007199254740993}}]}";
    let layer = yaml(text).unwrap().layered_runtime.unwrap().layers.remove(0);
    assert!(
        format!("{layer:?}").contains("StringValue(\"9007199254740993\")"),
        "as Envoy does, a string in a Struct"
    );

    let limit = "http_protocol_options: {max_header_field_size_kb: 18446744073709551615}";
    assert!(cluster(limit).is_err(), "no such field");
}

#[test]
fn enums_have_any_case_and_may_be_numbers() {
    for text in ["STRICT_DNS", "strict_dns", "Strict_Dns", "1", "\"1\""] {
        let discovery = cluster(&format!("type: {text}")).unwrap().cluster_discovery_type;
        assert_eq!(format!("{discovery:?}"), "Some(Type(StrictDns))", "{text}");
    }
    let (_, column, path, problem) = first_error(cluster("type: STRICT_DSN"));
    assert_eq!((column, path.as_str()), (7, "type"));
    assert!(problem.is_unknown_field());
    assert!(problem.to_string().ends_with("did you mean 'STRICT_DNS'?"), "{problem}");
    assert!(cluster("type: 1.0").is_err(), "a float is a string, and that no name");
}

#[test]
fn durations_need_their_unit() {
    let timeout = |text: &str| {
        cluster(&format!("connect_timeout: {text}")).map(|c| c.connect_timeout.map(|d| (d.seconds, d.nanos)))
    };
    for (text, value) in [
        ("5s", (5, 0)),
        ("0.5s", (0, 500_000_000)),
        ("05s", (5, 0)),
        ("-1.5s", (-1, -500_000_000)),
        ("1.000000001s", (1, 1)),
        ("{seconds: 5, nanos: 1}", (5, 1)),
    ] {
        assert_eq!(timeout(text).unwrap(), Some(value), "{text}");
    }
    for text in [
        "5",
        "\"5\"",
        "1m",
        "5S",
        "5ms",
        "\" 5s\"",
        "5.s",
        ".5s",
        "+5s",
        "1e1s",
        "1.0000000001s",
        "315576000001s",
    ] {
        assert!(timeout(text).is_err(), "{text}");
    }
    let (line, column, path, problem) = first_error(timeout("5"));
    assert_eq!((line, column, path.as_str()), (1, 18, "connect_timeout"));
    assert!(problem.to_string().contains("\"5s\""), "{problem}");
}

#[test]
fn timestamps_are_rfc_3339() {
    use crate::google::protobuf::Timestamp;
    let read =
        |text: &str| typed::<Timestamp>(text, Syntax::Json, &LoadOptions::default()).map(|t| (t.seconds, t.nanos));
    assert_eq!(read("\"1970-01-01T00:00:01Z\"").unwrap(), (1, 0));
    assert_eq!(
        read("\"2024-02-29T12:30:00.25+02:00\"").unwrap(),
        (1_709_202_600, 250_000_000)
    );
    assert_eq!(read("\"0001-01-01T00:00:00Z\"").unwrap(), (-62_135_596_800, 0));
    for text in [
        "\"2024-02-29\"",
        "\"2024-02-29T12:30:00\"",
        "\"2024-02-29t12:30:00Z\"",
        "5",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn bytes_are_base64_in_either_alphabet() {
    let secret = |text: &str| {
        let text = format!("static_resources: {{secrets: [{{generic_secret: {{secret: {{inline_bytes: {text}}}}}}}]}}");
        yaml(&text).map(|b| format!("{:?}", b.static_resources.unwrap().secrets[0]))
    };
    assert!(secret("aGk=").unwrap().contains("InlineBytes([104, 105])"));
    assert!(secret("aGk").unwrap().contains("InlineBytes([104, 105])"));
    assert!(secret("_-8=").unwrap().contains("InlineBytes([255, 239])"));
    assert!(secret("/+8=").unwrap().contains("InlineBytes([255, 239])"));
    for text in ["a b", "\"aGk=\\n\"", "a", "aG=k"] {
        assert!(secret(text).is_err(), "{text}");
    }
}

#[test]
fn lists_take_one_value_and_flatten_and_null_is_an_empty_item() {
    assert_eq!(node("{client_features: a}").client_features, ["a"]);
    assert_eq!(node("{client_features: [[a], b]}").client_features, ["a", "b"]);
    assert_eq!(node("{client_features: [null]}").client_features, [""]);
    assert_eq!(node("{client_features: null}").client_features, [""; 0]);
    assert!(yaml("node: {client_features: {a: b}}").is_err());
    let one = yaml("static_resources: {clusters: {name: c}}").unwrap();
    assert_eq!(one.static_resources.unwrap().clusters[0].name, "c");
}

#[test]
fn structs_keep_their_shape() {
    let node = node("{metadata: {1: 2, true: [[x]], ~: null, s: 'y'}}");
    let fields = node.metadata.unwrap().fields;
    assert_eq!(fields["1"].kind, Some(ValueKind::NumberValue(2.0)));
    assert_eq!(fields["s"].kind, Some(ValueKind::StringValue("y".into())));
    assert_eq!(fields["null"].kind, Some(ValueKind::NullValue(0)));
    let Some(ValueKind::ListValue(outer)) = &fields["true"].kind else {
        panic!("{fields:?}")
    };
    assert!(
        matches!(outer.values[0].kind, Some(ValueKind::ListValue(_))),
        "a list in a list stays one"
    );
}

#[test]
fn unknown_fields_are_refused_or_listed() {
    let text = "node: {id: a}\nstatic_resources:\n  clusters:\n  - name: c\n    conect_timeout: 1s\n";
    let error = yaml(text).unwrap_err();
    assert!(error.only_unknown_fields());
    let message = error.to_string();
    assert!(
        message.starts_with("Protobuf message (type envoy.config.bootstrap.v3.Bootstrap reason"),
        "{message}"
    );
    assert!(message.ends_with("has unknown fields"), "{message}");
    assert_eq!((error.errors[0].line, error.errors[0].column), (5, 5));
    assert_eq!(error.errors[0].path, "static_resources.clusters[0].conect_timeout");

    let options = LoadOptions {
        unknown_fields: UnknownFields::Allow,
    };
    let loaded = from_str(text, Syntax::Yaml, &Bootstrap::full_name(), &options).unwrap();
    assert_eq!(loaded.unknown_fields, error.errors);
    let bootstrap: Bootstrap = loaded.message.transcode_to().unwrap();
    assert_eq!(bootstrap.static_resources.unwrap().clusters[0].name, "c");
}

#[test]
fn a_real_error_is_not_excused_by_allowing_unknown_fields() {
    let options = LoadOptions {
        unknown_fields: UnknownFields::Allow,
    };
    let error = from_str("{foo: 1, node: abc}", Syntax::Yaml, &Bootstrap::full_name(), &options).unwrap_err();
    assert_eq!(error.errors.len(), 1);
    assert_eq!(error.errors[0].path, "node");
}

#[test]
fn every_error_of_a_text_is_reported_in_its_order() {
    let error = yaml("node: {id: 1}\nadmin: []\nfoo: 1\n").unwrap_err();
    let lines: Vec<_> = error.errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 2, 3]);
}

#[test]
fn duplicates_and_oneofs() {
    assert_eq!(node("{id: a, id: b}").id, "b");
    let twice = bootstrap(r#"{"node": {"id": "a"}, "node": {"cluster": "b"}}"#, Syntax::Json)
        .unwrap()
        .node
        .unwrap();
    assert_eq!((twice.id.as_str(), twice.cluster.as_str()), ("a", "b"));
    assert!(bootstrap(r#"{"node": {"metadata": {"a": 1, "a": 2}}}"#, Syntax::Json).is_err());

    let (_, _, path, problem) = first_error(cluster("{type: STATIC, cluster_type: {name: x}}"));
    assert_eq!(
        (path.as_str(), problem),
        ("cluster_type", Problem::AlreadySet("cluster_type".into()))
    );
    assert!(cluster("{type: STATIC, cluster_type: null}").is_ok());
}

#[test]
fn any_is_read_by_its_type() {
    let any = |text: &str| {
        cluster(&format!("typed_extension_protocol_options: {{a: {text}}}"))
            .map(|mut c| c.typed_extension_protocol_options.remove("a").unwrap())
    };
    let url = "foo.com/x/envoy.config.core.v3.Locality";
    let read = any(&format!("{{zone: z, \"@type\": {url}}}")).unwrap();
    assert_eq!(read.type_url, url);
    assert_eq!(
        crate::any::decode::<crate::envoy::config::core::v3::Locality>(&read)
            .unwrap()
            .zone,
        "z"
    );

    let duration = any("{\"@type\": type.googleapis.com/google.protobuf.Duration, value: 1s}").unwrap();
    assert_eq!(
        crate::any::decode::<crate::google::protobuf::Duration>(&duration)
            .unwrap()
            .seconds,
        1
    );
    assert_eq!(any("{}").unwrap(), crate::google::protobuf::Any::default());
    assert_eq!(any("null").unwrap(), crate::google::protobuf::Any::default());

    let problem = |text: &str| first_error(any(text)).3;
    assert!(matches!(problem("{\"@type\": a.com/foo.Bar}"), Problem::UnknownType(_)));
    assert!(matches!(problem("{\"@type\": foo.Bar}"), Problem::BadTypeUrl(_)));
    assert!(matches!(problem("{a: b}"), Problem::MissingType));
    assert!(matches!(
        problem(&format!("{{\"@type\": {url}, foo: 1}}")),
        Problem::UnknownField { .. }
    ));
    assert!(any("{\"@type\": a.com/google.protobuf.Struct, fields: {a: 1}}").is_err());
    assert_eq!(
        first_error(any(&format!("{{\"@type\": {url}, zone: 1}}"))).2,
        "typed_extension_protocol_options[\"a\"].zone"
    );
}

#[test]
fn yaml_structure() {
    assert_eq!(
        yaml("!ignore templates: &n {id: a, cluster: b}\nnode: *n\n")
            .unwrap()
            .node
            .unwrap()
            .cluster,
        "b"
    );
    assert!(yaml("node:\n  <<: {id: a}\n").is_err(), "no merge keys");
    assert_eq!(
        yaml("node: {id: a}\n---\nfoo: {").unwrap().node.unwrap().id,
        "a",
        "the first document only"
    );
    assert_eq!(yaml("\u{feff}node: {id: a}").unwrap().node.unwrap().id, "a");
    for text in [
        "",
        "# only a comment\n",
        "abc",
        "- a",
        "node:\n\tid: a",
        "node: {metadata: {? [a] : 2}}",
        "node: {id: *x}",
    ] {
        assert!(yaml(text).is_err(), "{text:?}");
    }
    let (line, column, ..) = first_error(yaml("node:\n  id: a\n id: b\n"));
    assert_eq!((line, column), (3, 2));
}

#[test]
fn a_yaml_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
    }
    assert!(yaml(&text).is_err());
    assert!(yaml(&"[".repeat(100_000)).is_err());
    assert!(bootstrap(&"[".repeat(100_000), Syntax::Json).is_err());
}

#[test]
fn json_is_lenient_but_not_careless() {
    for text in [
        "{'node': {id: 'a', \"cluster\": 'b',},}",
        "{\"node\": {\"id\": \"tab\there\"}}",
        r#"{"node": {"id": "\u0041\ud83d\ude00\'\/"}}"#,
        "{\"enable_dispatcher_stats\": \"t\"}",
        "{\"node\": {\"metadata\": {\"a\": [1, 2,]}}}",
    ] {
        assert!(bootstrap(text, Syntax::Json).is_ok(), "{text}");
    }
    for text in [
        "",
        "null",
        "[]",
        "\u{feff}{}",
        "{} x",
        "{/*c*/}",
        "node: {}",
        "{\"node\": {\"id\": \"a\",,}}",
        "{\"node\": {null: 1}}",
        r#"{"node": {"id": "\x"}}"#,
        r#"{"node": {"id": "\ud800"}}"#,
        "{\"node\": {\"metadata\": {\"a\": NaN}}}",
        "{\"node\": {\"metadata\": {\"a\": 010}}}",
        "{\"node\": {\"id\": 1}}",
        "{\"node\": {\"id\": \"a}}",
    ] {
        assert!(bootstrap(text, Syntax::Json).is_err(), "{text}");
    }
    let (line, column, ..) = first_error(bootstrap("{\n  \"node\": {\n    \"id\": @\n", Syntax::Json));
    assert_eq!((line, column), (3, 11));
}

#[test]
fn files_are_read_by_their_ending() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        from_file(&path, "envoy.config.core.v3.Node", &LoadOptions::default())
            .map(|loaded| loaded.message.transcode_to::<EnvoyNode>().unwrap().id)
    };
    let binary = EnvoyNode {
        id: "a".into(),
        ..Default::default()
    }
    .encode_to_vec();
    assert_eq!(read("n.yaml", b"id: a").unwrap(), "a");
    assert_eq!(read("n.YML", b"id: a").unwrap(), "a");
    assert_eq!(read("n.json", b"{id: 'a'}").unwrap(), "a");
    assert_eq!(read("n.pb", &binary).unwrap(), "a");
    assert_eq!(read("n.pb_text", b"id: 'a'").unwrap(), "a");
    assert_eq!(read("n", b"{id: 'a'}").unwrap(), "a");
    assert!(read("n.conf", b"id: a").is_err());
    assert!(read("n.pb", b"\x0a\xff").is_err());
    assert!(read("n.pb", b"\xf8\x7f\x01").unwrap_err().only_unknown_fields());
    assert!(read("n.pb_text", b"idd: 'a'").is_err());
    let (line, column, ..) = first_error(read("n.yaml", b"id: a\nx: \xff"));
    assert_eq!((line, column), (2, 4));

    let missing = from_file(
        &folder.path().join("none.yaml"),
        "envoy.config.core.v3.Node",
        &LoadOptions::default(),
    );
    assert!(missing.unwrap_err().to_string().contains("none.yaml"));
}

#[test]
fn merging_extends_lists_and_replaces_scalars() {
    let load = |text: &str| {
        from_str(text, Syntax::Yaml, &Bootstrap::full_name(), &LoadOptions::default())
            .unwrap()
            .message
    };
    let mut base = load("{node: {id: a, cluster: b}, static_resources: {clusters: [{name: one}]}}");
    merge(
        &mut base,
        &load("{node: {id: z}, static_resources: {clusters: [{name: two}]}}"),
    )
    .unwrap();
    let merged: Bootstrap = base.transcode_to().unwrap();
    let node = merged.node.unwrap();
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("z", "b"));
    let names: Vec<_> = merged
        .static_resources
        .unwrap()
        .clusters
        .into_iter()
        .map(|c| c.name)
        .collect();
    assert_eq!(names, ["one", "two"]);
}
