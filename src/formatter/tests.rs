//! What is expected was observed on Envoy 1.40.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderValue, StatusCode, Version};
use xds_protos::{
    envoy::config::core::v3::SubstitutionFormatString,
    google::protobuf::{Struct, Value, value::Kind},
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::{
    http::{
        Flag,
        stream_info::{CertInfo, Sharing, StringObject, TlsInfo},
    },
    net::Address,
    route::test_support::{request, server, stream},
    upstream::Host,
};

fn parse(text: &str) -> ConfigResult<Format> {
    Format::parse(text, &mut BuildCx::new(&server()))
}

fn written(format: &Format, cx: &FormatCx<'_>) -> String {
    let mut out = Vec::new();
    format.write(&mut out, cx);
    String::from_utf8(out).unwrap()
}

/// A stream that was answered by an upstream.
fn answered() -> StreamInfo {
    let mut info = stream();
    info.start_time = UNIX_EPOCH + Duration::new(1_795_239_946, 456_011_000);
    info.response_code = Some(StatusCode::OK);
    info.response_code_details = Some("via upstream".into());
    info.flags.set(Flag::UpstreamConnectionFailure);
    info.flags.set(Flag::NoRouteFound);
    info.progress.bytes_sent.set(123);
    info.request_id = Some(HeaderValue::from_static("id-1"));
    let address: Address = Address::Ip("127.0.0.1:81".parse().unwrap());
    info.upstream.host = Some(Arc::new(Host::new(
        address.clone(),
        "name:81",
        1,
        crate::upstream::HostAttributes::default(),
    )));
    info.upstream.connected = true;
    info.upstream.earlier_hosts = vec![info.upstream.host.clone().unwrap()];
    info.upstream.remote_address = Some(address);
    info.upstream.protocol = Some(Version::HTTP_2);
    info.upstream.cluster = Some("up".into());
    info.upstream.attempts = 2;
    info.upstream.transport_failure = Some("delayed connect error: Connection refused".into());
    let inner = Struct {
        fields: [("k".to_owned(), text("v")), ("n".to_owned(), number(1.5))].into(),
    };
    let fields = [
        ("s".to_owned(), text("plain")),
        ("n".to_owned(), number(3.0)),
        ("inner".to_owned(), kind(Kind::StructValue(inner))),
    ];
    info.metadata.insert("ns".to_owned(), Struct { fields: fields.into() });
    let object = Rc::new(StringObject("fs \"quoted\"".into()));
    info.filter_state.set("obj".into(), object, Sharing::None, false);
    info
}

fn kind(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(s: &str) -> Value {
    kind(Kind::StringValue(s.to_owned()))
}

fn number(n: f64) -> Value {
    kind(Kind::NumberValue(n))
}

#[test]
fn operators() {
    let mut head = request(
        "h:1",
        "/p?x=a%20b&y",
        &[("x-a", "1"), ("x-a", "2"), ("content-type", "application/grpc")],
    );
    head.headers
        .insert("x-envoy-original-path", HeaderValue::from_static("/orig?o"));
    let mut response = ResponseHead::new(StatusCode::OK);
    response.headers.insert("x-up", HeaderValue::from_static("up"));
    let info = answered();
    let cx = FormatCx {
        request: Some(&head),
        response: Some(&response),
        info: &info,
    };
    for (format, expected) in [
        ("100%% [%PROTOCOL%]", "100% [HTTP/1.1]"),
        ("%REQ(X-A)% %REQ(none?x-a)% %REQ(none)% %REQ(:method):1%", "1 1 - G"),
        (
            "%REQ(:AUTHORITY)% %RESP(x-up)% %RESP(:status)% %TRAILER(x)%",
            "h:1 up 200 -",
        ),
        (
            "%PATH% %PATH(NQ)% %PATH(WQ:PATH)% %PATH(NQ:PATH):2%",
            "/orig?o /orig /p?x=a%20b&y /p",
        ),
        (
            "%QUERY_PARAM(x)% %QUERY_PARAM(z)% %QUERY_PARAMS(ORIG)%",
            "a b - x=a%20b&y",
        ),
        (
            "%COALESCE({\"operators\":[\"ROUTE_NAME\",{\"command\":\"REQ\",\"param\":\"x-a\"}]})% %REQUEST_HEADER(no?x-a)%",
            "1 1",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %CEL(1e5)%",
            "10.0.0.0/8 10.0.0.1 100000",
        ),
        (
            "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
            "200 UF,NR UpstreamConnectionFailure,NoRouteFound",
        ),
        (
            "%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%",
            "via_upstream via upstream",
        ),
        (
            "%BYTES_SENT% %BYTES_RECEIVED% %STREAM_ID% %CONNECTION_ID%",
            "123 0 id-1 7",
        ),
        (
            "%UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%",
            "127.0.0.1:81 name:81 name",
        ),
        (
            "%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT%",
            "127.0.0.1:81,127.0.0.1:81 127.0.0.1,127.0.0.1",
        ),
        (
            "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_PORT%",
            "127.0.0.1 81 -",
        ),
        (
            "%UPSTREAM_PROTOCOL% %UPSTREAM_CLUSTER_RAW% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            "HTTP/2 up 2",
        ),
        (
            "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
            "delayed_connect_error:_Connection_refused",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_PORT%",
            "10.0.0.1:1000 80",
        ),
        (
            "%DYNAMIC_METADATA(ns:s)% %DYNAMIC_METADATA(ns:n)% %DYNAMIC_METADATA(ns:inner:k)%",
            "plain 3 v",
        ),
        (
            "%DYNAMIC_METADATA(ns:inner)% %DYNAMIC_METADATA(no)% %DYNAMIC_METADATA(ns:s):3%",
            "{\"k\":\"v\",\"n\":1.5} - pla",
        ),
        ("%METADATA(DYNAMIC:ns:inner:n)%", "1.5"),
        (
            "%FILTER_STATE(obj:PLAIN)% %FILTER_STATE(obj)% %FILTER_STATE(no:PLAIN)%",
            "fs \"quoted\" \"fs \\\"quoted\\\"\" -",
        ),
        (
            "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%",
            "Unknown UNKNOWN 2",
        ),
        (
            "%ROUTE_NAME% %VIRTUAL_CLUSTER_NAME% %DOWNSTREAM_TLS_VERSION% %ENVIRONMENT(NUNCIO_NO_SUCH)%",
            "- - - -",
        ),
        ("%ACCESS_LOG_TYPE%|%LOCAL_REPLY_BODY%|%CUSTOM_FLAGS%", "NotSet||"),
        ("%COMMON_DURATION(DS_RX_BEG:US_RX_END)% %REQUEST_DURATION%", "- -"),
    ] {
        assert_eq!(written(&parse(format).unwrap(), &cx), expected, "{format}");
    }
}

#[test]
fn times() {
    let info = answered();
    let cx = FormatCx {
        request: None,
        response: None,
        info: &info,
    };
    for (format, expected) in [
        ("%START_TIME%", "2026-11-21T05:45:46.456Z"),
        (
            "%START_TIME(%s|%3s|%f|%3f|%E3S|%E*S|%b %e %j %p %I|%y|%H:%M)%",
            "1795239946|1795239946|456011000|456|46.456|46.456011|Nov 21 325 AM 05|26|05:45",
        ),
        (
            "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s.%3f)%",
            "2026/11/21T05:45:46+0000 1795239946.456",
        ),
        (
            "%START_TIME(%F %T %a %A %B)%",
            "2026-11-21 05:45:46 Sat Saturday November",
        ),
    ] {
        assert_eq!(written(&parse(format).unwrap(), &cx), expected, "{format}");
    }
}

#[test]
fn missing_values_may_be_left_out() {
    let info = stream();
    let cx = FormatCx {
        request: None,
        response: None,
        info: &info,
    };
    let format = Format::parse_omit_empty("[%REQ(x)%] %RESPONSE_FLAGS%", &mut BuildCx::new(&server())).unwrap();
    assert_eq!(written(&format, &cx), "[] -");
}

#[test]
fn tls_facts() {
    let mut info = stream();
    let mut tls = TlsInfo {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        ..TlsInfo::default()
    };
    tls.peer = CertInfo {
        uri_sans: vec!["spiffe://a".into(), "spiffe://b".into()],
        subject: "CN=client".into(),
        ..CertInfo::default()
    }
    .into();
    Rc::get_mut(&mut info.connection).unwrap().tls = Some(Arc::new(tls));
    let cx = FormatCx {
        request: None,
        response: None,
        info: &info,
    };
    let format = parse("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_LOCAL_SUBJECT% %DOWNSTREAM_TLS_SESSION_ID%").unwrap();
    assert_eq!(written(&format, &cx), "TLSv1.3 spiffe://a,spiffe://b CN=client - -");
}

const JSON: &str = "
json_format:
  b: '%PROTOCOL%'
  a: {z: '%RESPONSE_CODE%', n: '%REQ(x-none)%', t: 'x%REQ(x-none)%y', num: 1.5, i: 7, bool: true, nul: null}
  l: ['%BYTES_SENT%', '%REQ(x-none)%', lit]
  two: '%RESPONSE_CODE%%RESPONSE_CODE%'
  m: '%DYNAMIC_METADATA(ns:inner)%'
  esc: 'q\"\\%REQ(x-esc)%'
";

fn json(extra: &str) -> String {
    let proto: SubstitutionFormatString = typed(
        &format!("{}{extra}", JSON.trim_start()),
        Syntax::Yaml,
        &LoadOptions::default(),
    )
    .unwrap();
    let format = Format::build(proto, &mut BuildCx::new(&server())).unwrap();
    assert_eq!(format.content_type(), "application/json");
    let head = request("h", "/", &[("x-esc", "a\"b\\c\td")]);
    let info = answered();
    let cx = FormatCx {
        request: Some(&head),
        response: None,
        info: &info,
    };
    written(&format, &cx)
}

#[test]
fn json_keeps_types_and_sorts_keys() {
    assert_eq!(
        json(""),
        concat!(
            r#"{"a":{"bool":true,"i":7,"n":null,"nul":null,"num":"1.5","t":"x-y","z":200},"b":"HTTP/1.1","#,
            r#""esc":"q\"\\a\"b\\c\td","l":[123,null,"lit"],"m":{"k":"v","n":1.5},"two":"200200"}"#,
            "\n"
        )
    );
    assert_eq!(
        json("omit_empty_values: true"),
        concat!(
            r#"{"a":{"bool":true,"i":7,"num":"1.5","t":"xy","z":200},"b":"HTTP/1.1","#,
            r#""esc":"q\"\\a\"b\\c\td","l":[123,"lit"],"m":{"k":"v","n":1.5},"two":"200200"}"#,
            "\n"
        )
    );
}

#[test]
fn refused_in_envoys_words() {
    for (command, reason) in [
        ("NOPE", "Not supported field in StreamInfo: NOPE"),
        (
            "RESPONSE_CODE(1)",
            "RESPONSE_CODE does not take any parameters or length",
        ),
        ("HOSTNAME:3", "HOSTNAME does not take any parameters or length"),
        ("REQ", "REQ requires parameters"),
        ("DYNAMIC_METADATA()", "DYNAMIC_METADATA requires parameters"),
        ("REQ(a?b?c)", "More than 1 alternative header specified in token: a?b?c"),
        ("START_TIME:3", "START_TIME does not allow length to be specified."),
        (
            "UPSTREAM_METADATA(a:b):3",
            "UPSTREAM_METADATA does not allow length to be specified.",
        ),
        (
            "START_TIME(%n)",
            "Invalid header configuration. Format string contains newline.",
        ),
        ("COMMON_DURATION(a)", "Invalid common duration configuration: a."),
        ("COMMON_DURATION(a:b:c)", "Invalid common duration precision: c."),
        ("METADATA(XX:a)", "XX is not supported type of metadata"),
        (
            "REQ_WITHOUT_QUERY(:path)",
            "Not supported field in StreamInfo: REQ_WITHOUT_QUERY",
        ),
        (
            "COALESCE({\"operators\":[\"NOPE\"]})",
            "COALESCE: failed to parse operator at index 0: unknown command: 'NOPE'",
        ),
        (
            "FILTER_STATE",
            "Invalid filter state configuration, key cannot be empty.",
        ),
        (
            "FILTER_STATE(a:b)",
            "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.",
        ),
        (
            "FILTER_STATE(a:FIELD)",
            "Invalid filter state serialize type, FIELD should be used with the field name.",
        ),
        (
            "GRPC_STATUS(x)",
            "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: x",
        ),
        ("PATH(XX)", "Invalid PATH option: 'XX', only 'WQ'/'NQ' are allowed"),
        (
            "QUERY_PARAMS(x)",
            "Invalid QUERY_PARAMS option: 'x', only 'ORIG'/'DECODED' are allowed",
        ),
        (
            "req(a)",
            "Incorrect configuration: ab%req(a)%. Couldn't find valid command at position 2",
        ),
    ] {
        assert_eq!(
            parse(&format!("ab%{command}%")).unwrap_err().reason(),
            reason,
            "{command}"
        );
    }
}

#[test]
fn the_default_access_log_is_a_format() {
    assert!(parse(DEFAULT_ACCESS_LOG).unwrap().as_literal().is_none());
    assert_eq!(parse("50%%").unwrap().as_literal(), Some("50%"));
}
