//! Actions and policies of routes.

use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::route::{Action, Priority, RetryOn, rate_limit::DescriptorCx};

#[test]
fn defaults_of_a_route_action() {
    let table = table("- {match: {prefix: /}, route: {cluster: c}}");
    let found = find(&table, &request("h", "/", &[])).unwrap();
    let action = found.forward().unwrap();
    assert_eq!(found.cluster_name(), "c");
    assert_eq!(action.timeouts.global, Duration::from_secs(15));
    assert_eq!(action.cluster_not_found, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(action.priority, Priority::Default);
    assert!(action.retry_policy.is_none() && action.timeouts.idle.is_none());
}

#[test]
fn weighted_clusters_by_random_value_and_header() {
    let table = table(
        "- {match: {prefix: /}, route: {weighted_clusters: {header_name: x-r, clusters: [{name: a, weight: 10}, {cluster_header: x-c, weight: 0}, {name: b, weight: 30}]}}}",
    );
    let cluster = |random: u64, headers: &[(&str, &str)]| {
        let found = table
            .find(&request("h", "/", headers), &stream(), random)
            .matched()
            .unwrap();
        found.cluster_name().to_owned()
    };
    assert_eq!(
        [cluster(9, &[]), cluster(10, &[]), cluster(39, &[]), cluster(40, &[])],
        ["a", "b", "b", "a"]
    );
    assert_eq!(cluster(0, &[("x-r", "15")]), "b");
    // Several values do not count, nor does what is no number.
    assert_eq!(cluster(0, &[("x-r", "15"), ("x-r", "15")]), "a");
    assert_eq!(cluster(0, &[("x-r", "z")]), "a");
}

#[test]
fn weights_are_checked() {
    let reason = |clusters: &str| {
        let yaml = format!(
            "name: t\nvirtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{weighted_clusters: {{clusters: [{clusters}]}}}}}}]}}]"
        );
        build(&yaml).unwrap_err().reason().to_owned()
    };
    assert_eq!(
        reason("{name: a, weight: 0}"),
        "Sum of weights in the weighted_cluster must be greater than 0."
    );
    assert_eq!(
        reason("{weight: 1}"),
        "At least one of name or cluster_header need to be specified"
    );
}

#[test]
fn cluster_from_a_header() {
    let table = table("- {match: {prefix: /}, route: {cluster_header: x-c}}");
    assert_eq!(
        find(&table, &request("h", "/", &[("x-c", "a"), ("x-c", "b")]))
            .unwrap()
            .cluster_name(),
        "a"
    );
    assert_eq!(find(&table, &request("h", "/", &[])).unwrap().cluster_name(), "");
}

#[test]
fn retry_policy_is_the_routes_or_the_virtual_hosts() {
    let table = build(
        "name: t
virtual_hosts:
- name: v
  domains: ['*']
  retry_policy: {retry_on: 'gateway-error', num_retries: 4}
  routes:
  - match: {path: /own}
    route: {cluster: c, retry_policy: {retry_on: '5xx,unavailable,nonsense', per_try_timeout: 0.25s, retry_back_off: {base_interval: 0.1s}}}
  - {match: {prefix: /}, route: {cluster: c}}",
    )
    .unwrap();
    let policy = |path: &str| {
        find(&table, &request("h", path, &[]))
            .unwrap()
            .forward()
            .unwrap()
            .retry_policy
            .clone()
            .unwrap()
    };
    let own = policy("/own");
    assert_eq!(own.retry_on, RetryOn::ON_5XX | RetryOn::GRPC_UNAVAILABLE);
    assert_eq!(
        (own.num_retries, own.per_try_timeout),
        (1, Some(Duration::from_millis(250)))
    );
    assert_eq!(
        own.back_off(Duration::from_millis(25)),
        (Duration::from_millis(100), Duration::from_secs(1))
    );
    let inherited = policy("/");
    assert_eq!((inherited.num_retries, inherited.retry_on), (4, RetryOn::GATEWAY_ERROR));
    assert_eq!(
        inherited.back_off(Duration::from_millis(25)),
        (Duration::from_millis(25), Duration::from_millis(250))
    );
}

#[test]
fn direct_responses_have_a_limit() {
    let with = |len: usize| {
        build(&format!(
            "name: t\nvirtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 418, body: {{inline_string: '{}'}}}}}}]}}]",
            "x".repeat(len)
        ))
    };
    let table = with(4096).unwrap();
    let found = find(&table, &request("h", "/", &[])).unwrap();
    let Action::DirectResponse(response) = &found.action else {
        panic!("not a direct response");
    };
    assert_eq!((response.status.as_u16(), response.body.len()), (418, 4096));
    assert_eq!(
        with(4097).unwrap_err().reason(),
        "response body size is 4097 bytes; maximum is 4096"
    );
}

#[test]
fn hashes_are_envoys() {
    let table = table(
        "- {match: {prefix: /}, route: {cluster: c, hash_policy: [{header: {header_name: x-h}, terminal: true}, {query_parameter: {name: q}}, {cookie: {name: k, ttl: 10s, path: /p}}]}}",
    );
    let hash = |path: &str, headers: &[(&str, &str)]| {
        let head = request("h", path, headers);
        find(&table, &head).unwrap().hash(&head, &stream())
    };
    let xx = |text: &str| twox_hash::XxHash64::oneshot(0, text.as_bytes());
    let by_header = hash("/?q=v", &[("x-h", "a")]);
    assert_eq!((by_header.hash, by_header.set_cookies.len()), (Some(xx("a")), 0));
    // The order of several values does not matter.
    assert_eq!(
        hash("/", &[("x-h", "a"), ("x-h", "b")]),
        hash("/", &[("x-h", "b"), ("x-h", "a")])
    );
    let by_both = hash("/?q=v", &[("cookie", "z=1; k=c")]);
    assert_eq!(by_both.hash, Some(xx("v").rotate_left(1) ^ xx("c")));
    let made = hash("/", &[]);
    let cookie = made.set_cookies[0].to_str().unwrap();
    assert!(
        cookie.starts_with("k=\"") && cookie.ends_with("\"; Max-Age=10; Path=/p; HttpOnly"),
        "{cookie}"
    );
}

#[test]
fn rate_limit_descriptors() {
    let table = table(
        "- match: {prefix: /}
  route:
    cluster: up
    rate_limits:
    - actions:
      - {destination_cluster: {}}
      - {request_headers: {header_name: x-u, descriptor_key: user}}
      - {remote_address: {}}
      - {masked_remote_address: {v4_prefix_mask_len: 8}}
      - {generic_key: {descriptor_value: g}}
      - {header_value_match: {descriptor_value: get, headers: [{name: ':method', string_match: {exact: GET}}]}}
      - {query_parameters: {query_parameter_name: q, descriptor_key: query, skip_if_absent: true}}
    - {stage: 1, actions: [{source_cluster: {}}], limit: {rate_limit: {requests_per_unit: 3, unit: HOUR}}}",
    );
    let head = request("h", "/", &[("x-u", "me")]);
    let found = find(&table, &head).unwrap();
    let info = stream();
    let cx = DescriptorCx {
        head: &head,
        info: &info,
        route: Some(&found),
        local_cluster: "mine",
    };
    let limits = &found.forward().unwrap().rate_limits;
    let first = limits.of_stage(0).next().unwrap().descriptor(&cx).unwrap();
    let entries: Vec<_> = first.entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        entries,
        [
            "destination_cluster=up",
            "user=me",
            "remote_address=10.0.0.1",
            "masked_remote_address=10.0.0.0/8",
            "generic_key=g",
            "header_match=get"
        ]
    );
    let second = limits.of_stage(1).next().unwrap().descriptor(&cx).unwrap();
    assert_eq!(second.entries, [("source_cluster".to_owned(), "mine".to_owned())]);
    assert_eq!(second.limit.unwrap().requests_per_unit, 3);
    // A header that is not there leaves no descriptor.
    let head = request("h", "/", &[]);
    let cx = DescriptorCx { head: &head, ..cx };
    assert_eq!(limits.of_stage(0).next().unwrap().descriptor(&cx), None);
}

#[test]
fn per_filter_configuration() {
    let yaml = |config: &str| {
        format!(
            "name: t
virtual_hosts:
- name: v
  domains: ['*']
  typed_per_filter_config: {{a: {{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}}
  routes:
  - {{match: {{path: /on}}, route: {{cluster: c}}, typed_per_filter_config: {{a: {{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {{}}}}}}}}
  - {{match: {{prefix: /}}, route: {{cluster: c}}, typed_per_filter_config: {{b: {config}}}}}"
        )
    };
    let unknown = "'@type': type.googleapis.com/envoy.config.route.v3.Route";
    let filter = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let table = build(&yaml(&format!(
        "{{{filter}, is_optional: true, config: {{{unknown}}}}}"
    )))
    .unwrap();
    let disabled = |path: &str, name: &str| find(&table, &request("h", path, &[])).unwrap().filter_disabled(name);
    assert_eq!(disabled("/on", "a"), Some(false));
    assert_eq!(disabled("/", "a"), Some(true));
    assert_eq!(disabled("/", "b"), Some(false));
    assert_eq!(disabled("/", "c"), None);
    assert_eq!(
        build(&yaml(&format!("{{{unknown}}}"))).unwrap_err().reason(),
        "Didn't find a registered implementation for 'b' with type URL: 'envoy.config.route.v3.Route'"
    );
    assert_eq!(
        build(&yaml(&format!("{{{filter}}}"))).unwrap_err().reason(),
        "Empty route/virtual host per filter configuration for b filter"
    );
}
