//! Header mutation.

use http::StatusCode;

use super::*;
use crate::http::ResponseHead;

const ADD: &str = "
- match: {prefix: /}
  route: {cluster: c}
  request_headers_to_add:
  - {header: {key: x-a, value: '1'}}
  - {header: {key: x-b, value: '2'}, append_action: ADD_IF_ABSENT}
  - {header: {key: x-c, value: '3'}, append_action: OVERWRITE_IF_EXISTS}
  - {header: {key: x-d, value: '4'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
  - {header: {key: x-e, value: '%REQ(x-none)%'}}
  - {header: {key: x-f, value: '%REQ(x-none)%'}, keep_empty_value: true}
  - {header: {key: x-g, value: '[%REQ(x-in?:path)%] %PROTOCOL% 100%% %REQ(:method):1%'}}
  - {header: {key: x-h, value: '5'}, append: false}
  request_headers_to_remove: [X-Rm]";

fn after(table: &Arc<RouteTable>, headers: &[(&str, &str)]) -> Vec<String> {
    let mut head = request("h", "/p", headers);
    find(table, &head)
        .unwrap()
        .finalize_request_headers(&mut head, &stream(), true);
    let mut all: Vec<_> = head
        .headers
        .iter()
        .map(|(n, v)| format!("{n}={}", v.to_str().unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn append_actions() {
    let table = table(ADD.trim_start());
    assert_eq!(
        after(
            &table,
            &[
                ("x-a", "0"),
                ("x-b", "0"),
                ("x-d", "0"),
                ("x-h", "0"),
                ("x-rm", "0"),
                ("x-in", "I")
            ]
        ),
        [
            "x-a=0",
            "x-a=1",
            "x-b=0",
            "x-d=4",
            "x-f=",
            "x-g=[I] HTTP/1.1 100% G",
            "x-h=5",
            "x-in=I"
        ]
    );
    assert_eq!(
        after(&table, &[("x-c", "0")]),
        [
            "x-a=1",
            "x-b=2",
            "x-c=3",
            "x-d=4",
            "x-f=",
            "x-g=[/p] HTTP/1.1 100% G",
            "x-h=5"
        ]
    );
}

fn levels(most_specific_wins: bool) -> Arc<RouteTable> {
    let add = |v: &str| format!("[{{header: {{key: x, value: {v}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]");
    build(&format!(
        "name: t
most_specific_header_mutations_wins: {most_specific_wins}
request_headers_to_add: {}
virtual_hosts:
- name: v
  domains: ['*']
  request_headers_to_add: {}
  routes:
  - match: {{prefix: /}}
    request_headers_to_add: {}
    route: {{weighted_clusters: {{clusters: [{{name: c, weight: 1, request_headers_to_add: {}}}]}}}}",
        add("table"),
        add("vhost"),
        add("route"),
        add("weighted")
    ))
    .unwrap()
}

#[test]
fn levels_run_in_envoys_order() {
    assert_eq!(after(&levels(false), &[]), ["x=table"]);
    assert_eq!(after(&levels(true), &[]), ["x=route"]);
}

#[test]
fn responses_are_formatted_before_they_change() {
    let table = table(
        "- match: {prefix: /}
  route: {cluster: c}
  response_headers_to_add:
  - {header: {key: x-up, value: b}}
  - {header: {key: x-s, value: '%RESP(x-up)% %REQ(:path)%'}}
  response_headers_to_remove: [server]",
    );
    let head = request("h", "/resp", &[]);
    let mut response = ResponseHead::new(StatusCode::OK);
    response.headers.insert("x-up", HeaderValue::from_static("a"));
    response.headers.insert("server", HeaderValue::from_static("s"));
    find(&table, &head)
        .unwrap()
        .finalize_response_headers(&mut response, Some(&head), &stream());
    assert_eq!(response.get("x-s"), Some(b"a /resp".as_slice()));
    assert_eq!(response.headers.get_all("x-up").iter().count(), 2);
    assert_eq!(response.get("server"), None);
}

#[test]
fn refused_in_envoys_words() {
    let reason = |fields: &str| build(&format!("name: t\n{fields}")).unwrap_err().reason().to_owned();
    assert_eq!(
        reason("request_headers_to_add: [{header: {key: ':path', value: x}}]"),
        ":-prefixed or host headers may not be modified"
    );
    assert_eq!(
        reason("response_headers_to_remove: [host]"),
        ":-prefixed or host headers may not be removed"
    );
    assert_eq!(
        reason("request_headers_to_add: [{header: {key: x, value: '%NOPE%'}}]"),
        "Not supported field in StreamInfo: NOPE"
    );
}
