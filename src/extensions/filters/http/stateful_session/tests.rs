use http::StatusCode;
use xds_protos::load::{LoadOptions, Syntax, typed};

use super::state::SessionState;
use crate::{
    config::BuildCx,
    http::ResponseHead,
    route::test_support::{request, server},
};

fn state(yaml: &str) -> SessionState {
    let server = server();
    let kind = "type.googleapis.com/envoy.extensions.http.stateful_session";
    let yaml = format!("{{name: s, typed_config: {{'@type': {kind}.{yaml}}}}}");
    let proto = typed(&yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    SessionState::build(proto, &mut BuildCx::new(&server)).unwrap()
}

fn response() -> ResponseHead {
    ResponseHead::new(StatusCode::OK)
}

#[test]
fn a_cookie_that_was_set_is_understood() {
    let state = state("cookie.v3.CookieBasedSessionState, cookie: {name: s, ttl: 60s, path: /a}");
    let mut head = response();
    state.update(None, "10.0.0.1:80", &mut head);
    let set = head.headers.get("set-cookie").unwrap().to_str().unwrap();
    let (pair, rest) = set.split_once("; ").unwrap();
    assert_eq!(rest, "Max-Age=60; Path=/a; HttpOnly");
    let mut head = request("h", "/a", &[("cookie", pair)]);
    assert_eq!(state.host(&mut head).as_deref(), Some("10.0.0.1:80"));
}

#[test]
fn a_host_that_is_known_is_not_told_again() {
    for yaml in [
        "cookie.v3.CookieBasedSessionState, cookie: {name: s}",
        "header.v3.HeaderBasedSessionState, name: s",
    ] {
        let mut head = response();
        state(yaml).update(Some("10.0.0.1:80"), "10.0.0.1:80", &mut head);
        assert!(head.headers.is_empty(), "{yaml}");
    }
}

#[test]
fn a_cookie_is_for_paths_below_its_own() {
    let state = state("cookie.v3.CookieBasedSessionState, cookie: {name: s, path: /a}");
    let covers = |path| state.concerns(&request("h", path, &[]));
    assert!(covers("/a") && covers("/a/b") && covers("/a?b"));
    assert!(!covers("/ab") && !covers("/"));
}

#[test]
fn bare_addresses_are_cookies_of_old_and_expired_ones_are_none() {
    let state = state("cookie.v3.CookieBasedSessionState, cookie: {name: s}");
    let host = |value: &str| state.host(&mut request("h", "/", &[("cookie", &format!("s={value}"))]));
    assert_eq!(host("MTI3LjAuMC4xOjU2Nzg=").as_deref(), Some("127.0.0.1:5678"));
    assert_eq!(host("Cg4xMjcuMC4wLjE6NTY3OBCsAg=="), None);
    assert_eq!(host("***"), None);
}

#[test]
fn an_envelope_is_closed_and_opened() {
    let state = state("envelope.v3.EnvelopeSessionState, header: {name: x-s}");
    let mut head = response();
    head.headers.insert("x-s", "mine".parse().unwrap());
    state.update(None, "h:1", &mut head);
    let sealed = head.headers.get("x-s").unwrap().to_str().unwrap().to_owned();
    let mut head = request("h", "/", &[("x-s", &sealed)]);
    assert_eq!(state.host(&mut head).as_deref(), Some("h:1"));
    assert_eq!(head.headers.get("x-s").unwrap(), "mine");
}
