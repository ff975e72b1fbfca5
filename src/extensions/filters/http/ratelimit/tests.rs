use http::HeaderMap;
use xds_protos::{
    envoy::service::ratelimit::v3::{RateLimitResponse, rate_limit_response::DescriptorStatus},
    load::{LoadOptions, Syntax, typed},
};

use super::{
    config::{Config, OfVirtualHost, PerRoute},
    headers,
};
use crate::{
    config::{BuildCx, ConfigResult},
    route::test_support::server,
};

const SERVICE: &str =
    "rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}";

fn build(yaml: &str) -> ConfigResult<Config> {
    let server = server();
    let proto = typed(
        &format!("domain: d\n{SERVICE}\n{yaml}"),
        Syntax::Yaml,
        &LoadOptions::default(),
    );
    Config::build(proto.unwrap(), &mut BuildCx::new(&server))
}

fn per_route(yaml: &str) -> PerRoute {
    let server = server();
    let proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    PerRoute::build(proto, &mut BuildCx::new(&server)).unwrap()
}

fn statuses(yaml: &str) -> Vec<DescriptorStatus> {
    let answer: RateLimitResponse = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    answer.statuses
}

#[test]
fn defaults_are_envoys() {
    let config = build("").unwrap();
    assert_eq!(config.timeout.as_millis(), 20);
    assert_eq!(
        (config.limited_status.as_u16(), config.error_status.as_u16()),
        (429, 500)
    );
    assert_eq!(config.requests, (true, true));
    assert_eq!(config.stats.over_limit, "ratelimit.over_limit");
    assert!(!config.deny_on_failure.hit(0) && config.enforced.hit(999_999) && config.enabled.hit(999_999));
    assert!(config.x_envoy_ratelimited && !config.x_ratelimit_headers);
}

#[test]
fn what_is_set_is_kept() {
    let config = build(
        "stat_prefix: p
request_type: internal
failure_mode_deny: true
rate_limited_status: {code: 200}
status_on_error: {code: 302}",
    )
    .unwrap();
    assert_eq!(config.requests, (true, false));
    assert_eq!(config.stats.ok, "ratelimit.p.ok");
    assert_eq!(
        (config.limited_status.as_u16(), config.error_status.as_u16()),
        (429, 302)
    );
    assert!(config.deny_on_failure.hit(999_999));
    // The share of a percentage replaces the switch.
    let config = build("failure_mode_deny: true\nfailure_mode_deny_percent: {default_value: {numerator: 0}}").unwrap();
    assert!(!config.deny_on_failure.hit(0));
}

#[test]
fn own_limits_have_no_stage() {
    let text = build("rate_limits: [{stage: 1, actions: [{remote_address: {}}]}]")
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("'stage' field and 'disable_key' field are not supported"),
        "{text}"
    );
}

#[test]
fn the_override_option_comes_before_the_virtual_host_option() {
    assert_eq!(per_route("{}").of_virtual_host, OfVirtualHost::Override);
    assert_eq!(
        per_route("vh_rate_limits: INCLUDE").of_virtual_host,
        OfVirtualHost::Include
    );
    assert_eq!(
        per_route("{vh_rate_limits: INCLUDE, override_option: IGNORE_POLICY}").of_virtual_host,
        OfVirtualHost::Ignore
    );
}

#[test]
fn headers_tell_of_the_tightest_limit_and_all_policies() {
    let mut map = HeaderMap::new();
    let all = statuses(
        "statuses:
- {limit_remaining: 4, current_limit: {requests_per_unit: 5, unit: DAY}, duration_until_reset: 60s}
- {limit_remaining: 1, current_limit: {requests_per_unit: 2, unit: MINUTE, name: m}, duration_until_reset: 7.9s}
- {limit_remaining: 0}",
    );
    headers::x_ratelimit(&all, &mut map);
    assert_eq!(map["x-ratelimit-limit"], "2, 5;w=86400, 2;w=60;name=\"m\"");
    assert_eq!(
        (&map["x-ratelimit-remaining"], &map["x-ratelimit-reset"]),
        (&"1".parse().unwrap(), &"7".parse().unwrap())
    );
    let mut none = HeaderMap::new();
    headers::x_ratelimit(&all[2..], &mut none);
    assert!(none.is_empty());
}
