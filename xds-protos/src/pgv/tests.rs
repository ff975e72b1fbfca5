use super::*;
use crate::load::{self, LoadOptions, Syntax};

fn dynamic(message: &str, yaml: &str) -> DynamicMessage {
    load::from_str(yaml, Syntax::Yaml, message, &LoadOptions::default())
        .unwrap()
        .message
}

fn bootstrap(yaml: &str) -> Result<(), Violation> {
    validate(&dynamic("envoy.config.bootstrap.v3.Bootstrap", yaml))
}

fn cluster(yaml: &str) -> Result<(), Violation> {
    validate(&dynamic(
        "envoy.config.cluster.v3.Cluster",
        &format!("{{name: c, {yaml}}}"),
    ))
}

fn connection_manager(yaml: &str) -> Result<(), Violation> {
    let name = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    validate(&dynamic(name, &format!("{{stat_prefix: x, {yaml}}}")))
}

fn reason(result: Result<(), Violation>) -> String {
    result.unwrap_err().reason
}

/// The innermost account, without the messages around it.
fn cause(result: Result<(), Violation>) -> String {
    let reason = reason(result);
    reason.rsplit(" | caused by ").next().unwrap().to_owned()
}

#[test]
fn the_error_text_is_envoys() {
    let violation = bootstrap("static_resources: {clusters: [{name: a}, {name: c, type: 99}]}").unwrap_err();
    assert_eq!(
        violation.to_string(),
        "Proto constraint validation failed (BootstrapValidationError.StaticResources: embedded message failed \
         validation | caused by StaticResourcesValidationError.Clusters[1]: embedded message failed validation | caused \
         by ClusterValidationError.Type: value must be one of the defined enum values)"
    );
    assert_eq!(violation.path, "static_resources.clusters[1].type");
    assert_eq!(violation.message, "envoy.config.bootstrap.v3.Bootstrap");
}

// The texts below are what Envoy 1.40 printed for the same configuration.
#[test]
fn numbers_and_durations() {
    let cases = [
        (
            bootstrap("stats_flush_interval: 400s"),
            "BootstrapValidationError.StatsFlushInterval: value must be inside range [1ms, 5m0s)",
        ),
        (
            cluster("connect_timeout: 0s"),
            "ClusterValidationError.ConnectTimeout: value must be greater than 0s",
        ),
        (
            cluster("dns_refresh_rate: 0.0005s"),
            "ClusterValidationError.DnsRefreshRate: value must be greater than 1ms",
        ),
        (
            cluster("outlier_detection: {max_ejection_percent: 101}"),
            "OutlierDetectionValidationError.MaxEjectionPercent: value must be less than or equal to 100",
        ),
        (
            cluster("common_lb_config: {healthy_panic_threshold: {value: 101}}"),
            "PercentValidationError.Value: value must be inside range [0, 100]",
        ),
        (
            cluster("preconnect_policy: {per_upstream_preconnect_ratio: 0.5}"),
            "PreconnectPolicyValidationError.PerUpstreamPreconnectRatio: value must be inside range [1, 3]",
        ),
        (
            cluster("load_assignment: {cluster_name: c, policy: {overprovisioning_factor: 0}}"),
            "PolicyValidationError.OverprovisioningFactor: value must be greater than 0",
        ),
        (
            connection_manager("route_config: {}, max_request_headers_kb: 9000"),
            "HttpConnectionManagerValidationError.MaxRequestHeadersKb: value must be inside range (0, 8192]",
        ),
        (
            connection_manager("route_config: {}, http2_protocol_options: {max_concurrent_streams: 0}"),
            "Http2ProtocolOptionsValidationError.MaxConcurrentStreams: value must be inside range [1, 2147483647]",
        ),
    ];
    for (result, text) in cases {
        assert_eq!(cause(result), text);
    }
    assert_eq!(bootstrap("stats_flush_interval: 299s"), Ok(()));
    assert_eq!(
        connection_manager("route_config: {}, max_request_headers_kb: 8192"),
        Ok(())
    );
}

#[test]
fn strings_lists_and_required_fields() {
    let cases = [
        (
            connection_manager("route_config: {}, server_name: \"a\\nb\""),
            "HttpConnectionManagerValidationError.ServerName: value does not match regex pattern \"^[^\\x00\\n\\r]*$\"",
        ),
        (
            connection_manager("route_config: {request_headers_to_remove: [a, \"a\\nb\"]}"),
            "RouteConfigurationValidationError.RequestHeadersToRemove[1]: value does not match regex pattern \
             \"^[^\\x00\\n\\r]*$\"",
        ),
        (
            connection_manager("route_config: {virtual_hosts: [{name: v}]}"),
            "VirtualHostValidationError.Domains: value must contain at least 1 item(s)",
        ),
        (
            connection_manager(""),
            "field: \"route_specifier\", reason: is required",
        ),
        (
            cluster("health_checks: [{timeout: 1s}]"),
            "HealthCheckValidationError.Interval: value is required",
        ),
        (
            cluster("health_checks: [{timeout: 1s, interval: 1s}]"),
            "HealthCheckValidationError.UnhealthyThreshold: value is required",
        ),
        (
            bootstrap("stats_config: {histogram_bucket_settings: [{match: {exact: a}, buckets: [1, 1]}]}"),
            "HistogramBucketSettingsValidationError.Buckets[1]: repeated value must contain unique items",
        ),
        (
            bootstrap("dynamic_resources: {ads_config: {api_type: GRPC, grpc_services: [{}]}}"),
            "field: \"target_specifier\", reason: is required",
        ),
        (
            bootstrap("overload_manager: {}"),
            "OverloadManagerValidationError.ResourceMonitors: value must contain at least 1 item(s)",
        ),
    ];
    for (result, text) in cases {
        assert_eq!(cause(result), text);
    }
}

#[test]
fn maps_check_their_keys_and_values() {
    let name = "envoy.config.cluster.v3.Cluster";
    let ok = dynamic(name, "{name: c, typed_extension_protocol_options: {a: null}}");
    assert_eq!(validate(&ok), Ok(()));

    let name = "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder";
    assert!(
        validate(&dynamic(name, "{services: [a]}")).is_err(),
        "the required oneof is not set"
    );
}

#[test]
fn optional_scalars_are_checked_where_set() {
    let rules =
        |yaml: &str| connection_manager(&format!("route_config: {{}}, common_http_protocol_options: {{{yaml}}}"));
    assert_eq!(rules(""), Ok(()));
    assert_eq!(
        cause(rules("max_headers_count: 0")),
        "HttpProtocolOptionsValidationError.MaxHeadersCount: value must be greater than or equal to 1"
    );
}

#[test]
fn anys_are_followed_when_asked() {
    let yaml = "{name: l, address: {socket_address: {address: a, port_value: 1}}, filter_chains: [{filters: [{name: h, \
                typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                HttpConnectionManager, stat_prefix: ''}}]}]}";
    let listener = dynamic("envoy.config.listener.v3.Listener", yaml);
    assert_eq!(validate(&listener), Ok(()));
    let violation = validate_with_anys(&listener).unwrap_err();
    assert_eq!(violation.path, "filter_chains[0].filters[0].typed_config.stat_prefix");
    assert_eq!(
        violation.reason,
        "HttpConnectionManagerValidationError.StatPrefix: value length must be at least 1 characters"
    );
}

#[test]
fn typed_messages_are_checked_too() {
    use crate::envoy::config::cluster::v3::Cluster;
    assert_eq!(
        validate_typed(&Cluster {
            name: "c".into(),
            ..Default::default()
        }),
        Ok(())
    );
    assert_eq!(validate_typed(&Cluster::default()).unwrap_err().path, "name");
}

#[test]
fn every_rule_of_the_api_compiles() {
    for message in crate::pool().all_messages() {
        let rules = compile::rules_of(&message);
        let oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic()).count();
        assert!(rules.fields.len() <= message.fields().len() && rules.oneofs.len() <= oneofs);
    }
}

#[test]
fn names_and_durations_print_as_go_prints_them() {
    for (name, camel) in [
        ("name", "Name"),
        ("http2_protocol_options", "Http2ProtocolOptions"),
        ("max_request_headers_kb", "MaxRequestHeadersKb"),
        ("x_ff_num_trusted_hops", "XFfNumTrustedHops"),
    ] {
        assert_eq!(text::camel(name), camel);
    }
    for (nanos, printed) in [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (1_000_000, "1ms"),
        (1_500_000_000, "1.5s"),
        (300_000_000_000, "5m0s"),
        (3_661_000_000_000, "1h1m1s"),
        (-1_000_000_000, "-1s"),
    ] {
        assert_eq!(rules::Nanos(nanos).to_string(), printed);
    }
    assert_eq!(
        text::quoted("a\"\\\u{0}\u{7f}\n\u{8}é"),
        "\"a\\\"\\\\\\x00\\x7f\\n\\bé\""
    );
}

#[test]
fn ranges_with_crossed_bounds_mean_outside() {
    let range = rules::Range {
        lt: Some(1),
        gt: Some(5),
        lte: None,
        gte: None,
    };
    assert_eq!(range.check(&3), Err("value must be outside range [1, 5]".into()));
    assert_eq!((range.check(&0), range.check(&6)), (Ok(()), Ok(())));
}
