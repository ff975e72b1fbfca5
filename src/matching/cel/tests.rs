//! What is expected was observed on Envoy 1.40.

use super::*;
use crate::route::test_support::{request, stream};

fn compile(text: &str) -> Result<CelExpression, String> {
    CelExpression::compile(text, CelOptions::default())
}

fn holds(text: &str) -> bool {
    let info = stream();
    let head = request("example.test", "/a?q=1", &[("x-a", "one"), ("x-m", "1"), ("x-m", "2")]);
    compile(text).unwrap().matches(&MatchCx::request(&info, &head))
}

#[test]
fn attributes_of_a_request() {
    for text in [
        "request.path == '/a?q=1'",
        "request['path'] == '/a?q=1'",
        "request.url_path == '/a' && request.query == 'q=1'",
        "request.headers['x-a'] == 'one'",
        "request.headers['X-A'].contains('n')",
        "request.headers['x-m'] == '1,2'",
        "request.headers[':authority'] == request.host",
        "'x-a' in request.headers && !('x-b' in request.headers)",
        "size(request.headers) > 3",
        "has(request.path) && !has(request.referer) && !has(request.nothing)",
        "request.method in ['GET', 'POST']",
        "source.address == '10.0.0.1:1000' && source.port == 1000",
        "destination.port == 80 && connection.mtls == false",
        "request.path.matches('q=') && request.path.startsWith('/a') && request.path.endsWith('1')",
        "request.headers['x-missing'] == 'a' || true",
        "request.time > timestamp('2020-01-01T00:00:00Z')",
        "(request.method == 'GET' ? 1 : 2) == 1",
        "!('a' in filter_state)",
        "1 + 2 * 3 == 7 && 7 % 4 == 3 && -1 < 0",
        "size(metadata.filter_metadata) == 0",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn errors_match_nothing() {
    for text in [
        "request.headers['x-missing'] == 'one'",
        "!(request.headers['x-missing'] == 'one')",
        "response.code == 200",
        "response.code != 200",
        "metadata.filter_metadata['f']['k'] == 'v'",
        "filter_state['a'] == 'b'",
        "connection.tls_version == ''",
        "nothing.at.all == 1",
        "request.path",
        "1 / 0 == 1",
        "'a' + 'b' == 'ab'",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_envoy_refuses_is_refused() {
    for (text, reason) in [
        ("[1].all(x, x > 0)", "Comprehension support is disabled"),
        (
            "string(1) == '1'",
            "No overload found in reference resolve step for string",
        ),
        (
            "'a'.lowerAscii() == 'a'",
            "No overload found in reference resolve step for lowerAscii",
        ),
        ("x.y.z()", "No overload found in reference resolve step for z"),
        ("request.path.matches('(')", "invalid regular expression"),
        ("", "Not able to parse filter expression"),
        ("a.?b", "Not able to parse filter expression"),
    ] {
        let error = compile(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert!(compile(&format!("1{}", " + 1".repeat(50))).is_ok());
    for too_deep in [format!("1{}", " + 1".repeat(1000)), "!".repeat(5000), "[".repeat(5000)] {
        assert!(compile(&too_deep).is_err());
    }
    assert!(compile(&format!("{}1{}", "(".repeat(80), ")".repeat(80))).is_err());
    assert!(compile(&format!("{}1{}", "(".repeat(30), ")".repeat(30))).is_ok());
    assert!(compile(&format!("request.path == '{}'", "(".repeat(80))).is_ok());
    assert!(compile(&"1 == 1 || ".repeat(2000)).is_err());
}

#[test]
fn values_as_text() {
    let info = stream();
    let head = request("example.test", "/a", &[]);
    let text = |text: &str| compile(text).unwrap().text(&MatchCx::request(&info, &head));
    assert_eq!(text("request.path").as_deref(), Some("/a"));
    assert_eq!(text("source.port").as_deref(), Some("1000"));
    assert_eq!(text("1 == 1").as_deref(), Some("true"));
    assert_eq!(text("request.headers['no']"), None);
}
