//! The bootstrap: one listener, and for each setting a route and a cluster over the same hosts.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::merge;

/// Hosts of each cluster; the first one turns evil.
pub const HOSTS: usize = 3;

/// A way of protecting a cluster: the first segment of the path chooses it.
pub struct Setting {
    pub name: &'static str,
    /// HTTP/2 upstream.
    pub h2: bool,
    cluster: fn() -> Value,
    route: fn() -> Value,
}

fn nothing() -> Value {
    json!({})
}

fn retry() -> Value {
    json!({"retry_policy": {
        "retry_on": "connect-failure,reset,refused-stream,5xx",
        "num_retries": 3,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.05s"},
    }})
}

fn timeout() -> Value {
    json!({"timeout": "1.2s", "retry_policy": {"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.5s"}})
}

fn outlier() -> Value {
    json!({
        "common_lb_config": {"update_merge_window": "0s"},
        "outlier_detection": {
            "consecutive_5xx": 2, "interval": "0.2s", "base_ejection_time": "0.5s", "max_ejection_percent": 100,
        },
    })
}

fn checked() -> Value {
    json!({
        "common_lb_config": {"update_merge_window": "0s"},
        "health_checks": [{
            "timeout": "0.3s", "interval": "0.2s", "no_traffic_interval": "0.2s",
            "unhealthy_threshold": 1, "healthy_threshold": 1,
            "http_health_check": {"path": "/hc"},
        }],
    })
}

/// All settings; each gets an equal share of the requests.
pub const SETTINGS: [Setting; 7] = [
    Setting {
        name: "plain",
        h2: false,
        cluster: nothing,
        route: nothing,
    },
    Setting {
        name: "retry",
        h2: false,
        cluster: nothing,
        route: retry,
    },
    Setting {
        name: "timeout",
        h2: false,
        cluster: nothing,
        route: timeout,
    },
    Setting {
        name: "outlier",
        h2: false,
        cluster: outlier,
        route: nothing,
    },
    Setting {
        name: "checked",
        h2: false,
        cluster: checked,
        route: nothing,
    },
    Setting {
        name: "h2",
        h2: true,
        cluster: nothing,
        route: nothing,
    },
    Setting {
        name: "h2-retry",
        h2: true,
        cluster: nothing,
        route: retry,
    },
];

/// `upstreams` are the ports of the hosts: first those of HTTP/1, then those of HTTP/2.
pub fn bootstrap(admin: u16, port: u16, upstreams: &[u16], log: &Path) -> Value {
    let routes: Vec<Value> = SETTINGS
        .iter()
        .map(|s| {
            let mut action = json!({"cluster": s.name, "timeout": "2s"});
            merge(&mut action, &(s.route)());
            json!({"match": {"prefix": format!("/{}/", s.name)}, "route": action})
        })
        .collect();
    let clusters: Vec<Value> = SETTINGS.iter().map(|s| cluster(s, upstreams)).collect();
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "chaos",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "local_reply_config": {"body_format": {"text_format_source": {"inline_string": "local %RESPONSE_FLAGS%"}}},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": log,
            },
        }],
    });
    json!({
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{
                "name": "chaos",
                "address": address(port),
                "filter_chains": [{
                    "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}],
                }],
            }],
            "clusters": clusters,
        },
    })
}

fn cluster(setting: &Setting, upstreams: &[u16]) -> Value {
    let hosts = match setting.h2 {
        false => &upstreams[..HOSTS],
        true => &upstreams[HOSTS..],
    };
    let endpoints: Vec<Value> = hosts
        .iter()
        .map(|p| json!({"endpoint": {"address": address(*p)}}))
        .collect();
    let mut cluster = json!({
        "name": setting.name,
        "type": "STATIC",
        "connect_timeout": "0.5s",
        // Three retries at once, the default, would make the outcome a matter of who is stalled when.
        "circuit_breakers": {"thresholds": [{"max_retries": 50}]},
        "load_assignment": {"cluster_name": setting.name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if setting.h2 {
        merge(
            &mut cluster,
            &json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }}}),
        );
    }
    merge(&mut cluster, &(setting.cluster)());
    cluster
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}
