//! `/config_dump`: what is configured, as it came, with versions, times and what was refused. Secrets are redacted
//! by the printer, which knows the API's sensitive fields.

use http::StatusCode;
use xds_protos::{
    dynamic,
    envoy::{
        admin::v3::{
            BootstrapConfigDump, ClientResourceStatus, ClustersConfigDump, ConfigDump, ListenersConfigDump,
            RoutesConfigDump, clusters_config_dump as clusters, listeners_config_dump as listeners,
            routes_config_dump as routes,
        },
        config::{
            cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
            route::v3::RouteConfiguration,
        },
    },
    google::protobuf::Any,
    print::{self, PrintOptions},
    prost::{Message, Name},
};

use super::{AdminRequest, Reply};
use crate::{
    server::ServerContext,
    upstream::admin,
    xds::{rds::RouteConfigs, timestamp},
};

/// A message as Envoy's admin prints it.
pub(super) fn to_json<T: Message + Name>(message: &T) -> String {
    dynamic::from_typed(message)
        .map(|m| print::json(&m, PrintOptions::default()))
        .unwrap_or_default()
}

/// The same with fields that are not set, as `/certs` prints them.
pub(super) fn to_json_with_defaults<T: Message + Name>(message: &T) -> String {
    let options = PrintOptions {
        always_print_defaults: true,
        ..PrintOptions::default()
    };
    dynamic::from_typed(message)
        .map(|m| print::json(&m, options))
        .unwrap_or_default()
}

/// The name of the assignment in an `Any`.
fn assignment_name(any: Option<&Any>) -> String {
    any.and_then(|a| ClusterLoadAssignment::decode(a.value.as_slice()).ok())
        .map(|a| a.cluster_name)
        .unwrap_or_default()
}

/// `/config_dump?resource=FIELD&name_regex=REGEX&include_eds`
pub(super) fn config_dump(request: &AdminRequest) -> Reply {
    let names = match request
        .param("name_regex")
        .filter(|f| !f.is_empty())
        .map(|f| regex::Regex::new(&format!("^(?:{f})$")))
        .transpose()
    {
        Ok(names) => names,
        Err(_) => {
            return Reply::error(
                StatusCode::BAD_REQUEST,
                "Error while parsing name_regex from query string",
            );
        }
    };
    if request.has("mask") {
        return Reply::error(StatusCode::NOT_IMPLEMENTED, "mask is not supported");
    }
    let keep = |name: &str| names.as_ref().is_none_or(|n| n.is_match(name));
    let server = &request.server;
    let listeners = listeners_dump(server, &keep);
    let clusters = clusters_dump(server, &keep);
    let routes = routes_dump(server, &keep);
    let mut endpoints = admin::endpoints_dump(server);
    endpoints
        .static_endpoint_configs
        .retain(|e| keep(&assignment_name(e.endpoint_config.as_ref())));
    endpoints
        .dynamic_endpoint_configs
        .retain(|e| keep(&assignment_name(e.endpoint_config.as_ref())));
    if let Some(resource) = request.param("resource").filter(|r| !r.is_empty()) {
        let configs = match resource.as_str() {
            "static_listeners" => pack_all(&listeners.static_listeners),
            "dynamic_listeners" => pack_all(&listeners.dynamic_listeners),
            "static_clusters" => pack_all(&clusters.static_clusters),
            "dynamic_active_clusters" => pack_all(&clusters.dynamic_active_clusters),
            "dynamic_warming_clusters" => pack_all(&clusters.dynamic_warming_clusters),
            "static_route_configs" => pack_all(&routes.static_route_configs),
            "dynamic_route_configs" => pack_all(&routes.dynamic_route_configs),
            "dynamic_endpoint_configs" => pack_all(&endpoints.dynamic_endpoint_configs),
            "static_endpoint_configs" => pack_all(&endpoints.static_endpoint_configs),
            "bootstrap" => vec![xds_protos::any::pack(&*server.bootstrap)],
            other => return Reply::error(StatusCode::NOT_FOUND, format!("{other} not found in config dump")),
        };
        return Reply::json(to_json(&ConfigDump { configs }) + "\n");
    }
    let mut bootstrap = (*server.bootstrap).clone();
    bootstrap.node = Some((*server.node).clone());
    let bootstrap = BootstrapConfigDump {
        bootstrap: Some(bootstrap),
        last_updated: Some(timestamp(server.started.0)),
    };
    let mut configs = vec![xds_protos::any::pack(&bootstrap), xds_protos::any::pack(&clusters)];
    if request.has("include_eds") {
        configs.push(xds_protos::any::pack(&endpoints));
    }
    configs.push(xds_protos::any::pack(&listeners));
    configs.push(xds_protos::any::pack(&routes));
    configs.push(xds_protos::any::pack(&crate::tls::secrets_config_dump(server)));
    Reply::json(to_json(&ConfigDump { configs }) + "\n")
}

fn pack_all<T: Message + Name>(messages: &[T]) -> Vec<Any> {
    messages.iter().map(xds_protos::any::pack).collect()
}

fn listeners_dump(server: &ServerContext, keep: &dyn Fn(&str) -> bool) -> ListenersConfigDump {
    let mut dump = ListenersConfigDump::default();
    let state = |l: &crate::listener::ListenerSnapshot| listeners::DynamicListenerState {
        version_info: l.version.to_string(),
        listener: Some(l.resource.clone()),
        last_updated: Some(timestamp(l.last_updated)),
    };
    let mut dynamic: std::collections::BTreeMap<String, listeners::DynamicListener> = Default::default();
    let entry = |name: &str| listeners::DynamicListener {
        name: name.to_owned(),
        ..Default::default()
    };
    for listener in server.listeners.active().iter().filter(|l| keep(&l.config.name)) {
        if listener.is_static {
            dump.static_listeners.push(listeners::StaticListener {
                listener: Some(listener.resource.clone()),
                last_updated: Some(timestamp(listener.last_updated)),
            });
        } else {
            let name = &*listener.config.name;
            dynamic
                .entry(name.to_owned())
                .or_insert_with(|| entry(name))
                .active_state = Some(state(listener));
        }
    }
    for (listener, _) in server.listeners.warming().iter().filter(|(l, _)| keep(&l.config.name)) {
        let name = &*listener.config.name;
        dynamic
            .entry(name.to_owned())
            .or_insert_with(|| entry(name))
            .warming_state = Some(state(listener));
    }
    for (name, known) in server.xds.inventory.resources(&xds_protos::type_url::<Listener>()) {
        if let Some(failure) = known.error.filter(|_| keep(&name)) {
            dynamic.entry(name.clone()).or_insert_with(|| entry(&name)).error_state = Some(failure.to_proto());
        }
    }
    dump.version_info = server.xds.inventory.version(&xds_protos::type_url::<Listener>());
    dump.dynamic_listeners = dynamic.into_values().collect();
    dump
}

fn clusters_dump(server: &ServerContext, keep: &dyn Fn(&str) -> bool) -> ClustersConfigDump {
    let type_url = xds_protos::type_url::<Cluster>();
    let known = server.xds.inventory.resources(&type_url);
    let mut dump = admin::config_dump(server, &server.xds.inventory.version(&type_url));
    let name = |any: Option<&Any>| {
        any.and_then(|a| Cluster::decode(a.value.as_slice()).ok())
            .map(|c| c.name)
            .unwrap_or_default()
    };
    dump.static_clusters.retain(|c| keep(&name(c.cluster.as_ref())));
    let mut shown = Vec::new();
    for list in [&mut dump.dynamic_active_clusters, &mut dump.dynamic_warming_clusters] {
        list.retain_mut(|c| {
            let name = name(c.cluster.as_ref());
            c.error_state = known.get(&name).and_then(|k| k.error.as_ref()).map(|f| f.to_proto());
            let kept = keep(&name);
            shown.push(name);
            kept
        });
    }
    // What was refused and has no predecessor is listed too, or nobody would see it.
    for (name, state) in &known {
        if let Some(failure) = state.error.as_ref().filter(|_| !shown.contains(name) && keep(name)) {
            dump.dynamic_warming_clusters.push(clusters::DynamicCluster {
                error_state: Some(failure.to_proto()),
                ..Default::default()
            });
        }
    }
    dump
}

fn routes_dump(server: &ServerContext, keep: &dyn Fn(&str) -> bool) -> RoutesConfigDump {
    let known = server
        .xds
        .inventory
        .resources(&xds_protos::type_url::<RouteConfiguration>());
    let applied = RouteConfigs::applied(&server.xds.routes);
    let mut dynamic: Vec<_> = applied
        .iter()
        .filter(|r| keep(&r.name))
        .map(|r| routes::DynamicRouteConfig {
            version_info: r.version.clone(),
            route_config: Some(r.resource.clone()),
            last_updated: Some(timestamp(r.last_updated)),
            error_state: known.get(&r.name).and_then(|k| k.error.as_ref()).map(|f| f.to_proto()),
            client_status: ClientResourceStatus::Unknown as i32,
        })
        .collect();
    for (name, state) in &known {
        if let Some(failure) = state
            .error
            .as_ref()
            .filter(|_| keep(name) && !applied.iter().any(|r| r.name == *name))
        {
            dynamic.push(routes::DynamicRouteConfig {
                error_state: Some(failure.to_proto()),
                ..Default::default()
            });
        }
    }
    RoutesConfigDump {
        static_route_configs: Vec::new(),
        dynamic_route_configs: dynamic,
    }
}
