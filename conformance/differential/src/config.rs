//! From a case to the listener and clusters it stands for, and from those to a bootstrap.
//!
//! The template is one listener with one HTTP connection manager, a virtual host for every domain,
//! and a cluster per upstream; the case's fragments are merged over it (mappings merge, lists and
//! scalars replace, `null` removes).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::case::{AccessLog, Case, UpstreamProtocol};
use crate::substitute::Scope;

/// The access-log line of a case that does not give its own.
pub const DEFAULT_LOG: &str = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% \
    flags=%RESPONSE_FLAGS% details=%RESPONSE_CODE_DETAILS% termination=%CONNECTION_TERMINATION_DETAILS% \
    upstream_failure=%UPSTREAM_TRANSPORT_FAILURE_REASON% rx=%BYTES_RECEIVED% tx=%BYTES_SENT% \
    cluster=%UPSTREAM_CLUSTER% host=%UPSTREAM_HOST% route=%ROUTE_NAME% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% \
    authority=%REQ(:AUTHORITY)%";

/// What a case adds to a bootstrap.
#[derive(Clone, Debug, Default)]
pub struct Fragment {
    pub listeners: Vec<Value>,
    pub clusters: Vec<Value>,
    /// Merged over the whole as protobuf merges.
    pub bootstrap: Map<String, Value>,
}

/// The file the case's access log goes to.
pub fn log_path(scope: &Scope) -> std::path::PathBuf {
    scope.dir.join(format!("{}.log", scope.prefix))
}

/// The case's listener and clusters.
pub fn fragment(case: &Case, scope: &Scope) -> Result<Fragment> {
    let mut fragment = Fragment {
        bootstrap: case.bootstrap.clone(),
        ..Default::default()
    };
    let names = cluster_names(case);
    fragment.listeners.push(listener(case, scope));
    for name in &names {
        if let Some(cluster) = cluster(case, scope, name)? {
            fragment.clusters.push(cluster);
        }
    }
    let mut boot = Value::Object(std::mem::take(&mut fragment.bootstrap));
    for value in fragment
        .listeners
        .iter_mut()
        .chain(&mut fragment.clusters)
        .chain([&mut boot])
    {
        prefix_clusters(value, &names, &scope.prefix);
    }
    if let Value::Object(map) = boot {
        fragment.bootstrap = map;
    }
    Ok(fragment)
}

/// A whole bootstrap of the fragments of some cases.
pub fn bootstrap(fragments: &[Fragment], admin: u16) -> Value {
    let mut whole = json!({
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": fragments.iter().flat_map(|f| f.listeners.clone()).collect::<Vec<_>>(),
            "clusters": fragments.iter().flat_map(|f| f.clusters.clone()).collect::<Vec<_>>(),
        },
    });
    for fragment in fragments {
        append(&mut whole, &Value::Object(fragment.bootstrap.clone()));
    }
    if whole.get("layered_runtime").is_none() && whole.to_string().contains("config.trace.v3") {
        // Spans are reported one by one, so that nobody has to wait for a timer.
        let values = json!({"tracing.opentelemetry.min_flush_spans": 1, "tracing.zipkin.min_flush_spans": 1});
        whole["layered_runtime"] = json!({"layers": [
            {"name": "spans", "static_layer": values},
            {"name": "admin", "admin_layer": {}},
        ]});
    }
    whole
}

/// Writes `bootstrap` where a proxy can read it.
pub fn write(bootstrap: &Value, path: &Path) -> Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(bootstrap)?)?;
    Ok(())
}

fn listener(case: &Case, scope: &Scope) -> Value {
    let filters = match &case.network_filters {
        Some(filters) => Value::Array(filters.clone()),
        None => json!(["{{hcm}}"]),
    };
    let mut chain = json!({ "filters": filters });
    merge(&mut chain, &Value::Object(case.filter_chain.clone()));
    let mut listener = json!({
        "name": scope.prefix,
        "stat_prefix": scope.prefix,
        "address": address(scope.port),
        "filter_chains": [chain],
    });
    if let Some(proxy) = &case.udp_proxy {
        merge(&mut listener, &udp_listener(scope, proxy));
    }
    merge(&mut listener, &Value::Object(case.listener.clone()));
    let log = access_log(case, scope);
    place(&mut listener, "{{hcm}}", &hcm(case, scope, log.as_ref()));
    if let Some(log) = log {
        place(&mut listener, "{{access_log}}", &log);
    }
    listener
}

/// What makes a listener one of UDP; the proxy goes to `up` unless it says otherwise.
fn udp_listener(scope: &Scope, proxy: &Map<String, Value>) -> Value {
    let route = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route",
        "cluster": "up",
    });
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
        "stat_prefix": scope.prefix,
        "access_log": ["{{access_log}}"],
    });
    if !proxy.contains_key("matcher") && !proxy.contains_key("cluster") {
        config["matcher"] = json!({"on_no_match": {"action": {"name": "route", "typed_config": route}}});
    }
    merge(&mut config, &Value::Object(proxy.clone()));
    json!({
        "address": {"socket_address": {"protocol": "UDP"}},
        "filter_chains": null,
        "listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": config}],
    })
}

fn hcm(case: &Case, scope: &Scope, log: Option<&Value>) -> Value {
    let mut filters = case.http_filters.clone();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let hosts = case
        .virtual_hosts
        .clone()
        .unwrap_or_else(|| vec![json!({"name": "vh", "domains": ["*"], "routes": case.routes})]);
    let mut route_config = json!({"name": scope.prefix, "virtual_hosts": hosts});
    merge(&mut route_config, &Value::Object(case.route_config.clone()));
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": scope.prefix,
        "route_config": route_config,
        "http_filters": filters,
        "access_log": log.into_iter().collect::<Vec<_>>(),
    });
    merge(&mut config, &Value::Object(case.hcm.clone()));
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

fn access_log(case: &Case, scope: &Scope) -> Option<Value> {
    let text = |s: &str| json!({"text_format_source": {"inline_string": format!("{s}\n")}});
    let format = match &case.access_log {
        AccessLog::Off => return None,
        _ if case.draws() => return None,
        AccessLog::Default => text(DEFAULT_LOG),
        AccessLog::Text(s) => text(s),
        AccessLog::Format(value) => value.clone(),
    };
    Some(json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log_path(scope),
            "log_format": format,
        },
    }))
}

fn cluster_names(case: &Case) -> Vec<String> {
    let declared = case.clusters.keys();
    let implied = case
        .upstreams
        .iter()
        .filter(|(_, u)| u.protocol != UpstreamProtocol::Dns);
    let implied = implied
        .map(|(name, _)| name)
        .filter(|u| !case.clusters.contains_key(*u));
    declared.chain(implied).cloned().collect()
}

fn cluster(case: &Case, scope: &Scope, name: &str) -> Result<Option<Value>> {
    let mut own = match case.clusters.get(name) {
        Some(Value::Null) => return Ok(None),
        Some(Value::Object(map)) => map.clone(),
        Some(other) => bail!("cluster {name}: {other} is no mapping"),
        None => Map::new(),
    };
    let members: Vec<String> = match own.remove("upstreams") {
        Some(list) => serde_json::from_value(list)?,
        None if case.upstreams.contains_key(name) => vec![name.to_owned()],
        None => Vec::new(),
    };
    let mut endpoints: Vec<Value> = members
        .iter()
        .map(|m| json!({"endpoint": {"address": address(scope.upstreams.get(m).copied().unwrap_or(1))}}))
        .collect();
    let port_of = |name: &str| scope.upstreams.get(name).copied().unwrap_or(1);
    let names: BTreeMap<String, String> = match own.remove("names") {
        Some(names) => serde_json::from_value(names)?,
        None => BTreeMap::new(),
    };
    let resolved = !names.is_empty();
    for (name, upstream) in names {
        let address = json!({"socket_address": {"address": name, "port_value": port_of(&upstream)}});
        endpoints.push(json!({"endpoint": {"address": address}}));
    }
    let full = format!("{}_{name}", scope.prefix);
    let mut cluster = json!({
        "name": full,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": full, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    let h2 = |m: &String| {
        case.upstreams
            .get(m)
            .is_some_and(|u| matches!(u.protocol, UpstreamProtocol::H2 | UpstreamProtocol::Frames))
    };
    if members.iter().any(h2) {
        merge(
            &mut cluster,
            &json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }}}),
        );
    }
    if resolved {
        merge(&mut cluster, &json!({"type": "STRICT_DNS"}));
    }
    if let Some(Value::String(name)) = own.remove("nameserver") {
        merge(
            &mut cluster,
            &json!({"typed_dns_resolver_config": resolver(port_of(&name))}),
        );
    }
    if own.contains_key("cluster_type") {
        merge(&mut cluster, &json!({"type": null}));
    }
    merge(&mut cluster, &Value::Object(own));
    Ok(Some(cluster))
}

/// Envoy's usual resolver, asking the `dns` upstream of this port.
fn resolver(port: u16) -> Value {
    json!({"name": "envoy.network.dns_resolver.cares", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers": [address(port)],
    }})
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// Puts the full name wherever a configuration names one of the case's clusters.
fn prefix_clusters(value: &mut Value, names: &[String], prefix: &str) {
    let full = |v: &mut Value| {
        if let Value::String(s) = v
            && names.iter().any(|n| n == s)
        {
            *s = format!("{prefix}_{s}");
        }
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|v| prefix_clusters(v, names, prefix)),
        Value::Object(map) => {
            for (key, v) in map.iter_mut() {
                match key.as_str() {
                    "cluster" | "cluster_name" => full(v),
                    "weighted_clusters" => {
                        let list = v.get_mut("clusters").and_then(Value::as_array_mut);
                        list.into_iter()
                            .flatten()
                            .filter_map(|c| c.get_mut("name"))
                            .for_each(full);
                    }
                    "clusters" => {
                        if let Value::Array(list) = v {
                            list.iter_mut().for_each(full);
                        }
                    }
                    _ => {}
                }
                prefix_clusters(v, names, prefix);
            }
        }
        _ => {}
    }
}

/// Replaces each string equal to `name` by `with`.
fn place(value: &mut Value, name: &str, with: &Value) {
    match value {
        Value::String(s) if s == name => *value = with.clone(),
        Value::Array(items) => items.iter_mut().for_each(|v| place(v, name, with)),
        Value::Object(map) => map.values_mut().for_each(|v| place(v, name, with)),
        _ => {}
    }
}

/// Mappings merge, everything else replaces, null removes.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.shift_remove(key);
                } else if let Some(slot) = base.get_mut(key) {
                    merge(slot, value);
                } else {
                    base.insert(key.clone(), value.clone());
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// As protobuf merges: lists append.
fn append(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    Some(slot) => append(slot, value),
                    None => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(over)) => base.extend(over.iter().cloned()),
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_replaces_lists_and_null_removes() {
        let mut base = json!({"a": {"b": 1, "c": [1, 2]}, "d": 4});
        merge(&mut base, &json!({"a": {"c": [3]}, "d": null, "e": 5}));
        assert_eq!(base, json!({"a": {"b": 1, "c": [3]}, "e": 5}));
    }

    #[test]
    fn only_names_of_the_case_get_its_prefix() {
        let mut value = json!({
            "cluster": "up",
            "other": {"cluster": "elsewhere", "name": "up"},
            "weighted_clusters": {"clusters": [{"name": "up"}]},
        });
        prefix_clusters(&mut value, &["up".to_owned()], "c");
        let want = json!({
            "cluster": "c_up",
            "other": {"cluster": "elsewhere", "name": "up"},
            "weighted_clusters": {"clusters": [{"name": "c_up"}]},
        });
        assert_eq!(value, want);
    }
}
