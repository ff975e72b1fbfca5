//! `/config_dump`: what is configured, as it came, with versions, times and what was refused. Secrets are redacted
//! by the printer, which knows the API's sensitive fields.

use http::StatusCode;
use xds_protos::{
    dynamic,
    envoy::{
        admin::v3::{
            BootstrapConfigDump, ClientResourceStatus, ClustersConfigDump, ConfigDump, EndpointsConfigDump,
            ListenersConfigDump, RoutesConfigDump, clusters_config_dump as clusters,
            endpoints_config_dump as endpoints, listeners_config_dump as listeners, routes_config_dump as routes,
        },
        config::{
            cluster::v3::Cluster,
            core::v3::{self as core, address::Address as AddressKind, socket_address::PortSpecifier},
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
            listener::v3::Listener,
            route::v3::RouteConfiguration,
        },
    },
    google::protobuf::{Any, UInt32Value},
    print::{self, PrintOptions},
    prost::{Message, Name},
};

use super::{AdminRequest, Reply};
use crate::{
    net::Address,
    server::ServerContext,
    xds::{rds::RouteConfigs, timestamp},
};

/// A message as Envoy's admin prints it.
pub(super) fn to_json<T: Message + Name>(message: &T) -> String {
    dynamic::from_typed(message)
        .map(|m| print::json(&m, PrintOptions::default()))
        .unwrap_or_default()
}

/// An address as the API writes it.
pub(super) fn address(address: &Address) -> core::Address {
    let kind = match address {
        Address::Ip(a) => AddressKind::SocketAddress(core::SocketAddress {
            address: a.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(a.port().into())),
            ..Default::default()
        }),
        Address::Pipe(path) => AddressKind::Pipe(core::Pipe {
            path: path.to_string(),
            mode: 0,
        }),
        Address::Internal { listener, endpoint } => AddressKind::EnvoyInternalAddress(core::EnvoyInternalAddress {
            endpoint_id: endpoint.to_string(),
            address_name_specifier: Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(
                listener.to_string(),
            )),
        }),
    };
    core::Address { address: Some(kind) }
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
    let endpoints = endpoints_dump(server, &keep);
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
    let known = server.xds.inventory.resources(&xds_protos::type_url::<Cluster>());
    let (active, warming) = server.clusters.snapshots();
    let mut dump = ClustersConfigDump {
        version_info: server.xds.inventory.version(&xds_protos::type_url::<Cluster>()),
        ..Default::default()
    };
    let dynamic = |c: &crate::upstream::ClusterSnapshot| clusters::DynamicCluster {
        version_info: c.version.to_string(),
        cluster: Some(c.resource.clone()),
        last_updated: Some(timestamp(c.last_updated)),
        error_state: known
            .get(&*c.cluster.info.name)
            .and_then(|k| k.error.as_ref())
            .map(|f| f.to_proto()),
        client_status: ClientResourceStatus::Unknown as i32,
    };
    for cluster in active.iter().filter(|c| keep(&c.cluster.info.name)) {
        if cluster.is_static {
            dump.static_clusters.push(clusters::StaticCluster {
                cluster: Some(cluster.resource.clone()),
                last_updated: Some(timestamp(cluster.last_updated)),
            });
        } else {
            dump.dynamic_active_clusters.push(dynamic(cluster));
        }
    }
    dump.dynamic_warming_clusters = warming
        .iter()
        .filter(|c| keep(&c.cluster.info.name))
        .map(dynamic)
        .collect();
    // What was refused and has no predecessor is listed too, or nobody would see it.
    for (name, state) in &known {
        let shown = active.iter().chain(&warming).any(|c| *c.cluster.info.name == **name);
        if let Some(failure) = state.error.as_ref().filter(|_| !shown && keep(name)) {
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

fn endpoints_dump(server: &ServerContext, keep: &dyn Fn(&str) -> bool) -> EndpointsConfigDump {
    let mut dump = EndpointsConfigDump::default();
    for cluster in server.clusters.active().iter().filter(|c| keep(&c.info.name)) {
        let endpoints: Vec<_> = cluster
            .hosts
            .load()
            .priorities
            .iter()
            .enumerate()
            .flat_map(|(priority, set)| {
                set.localities.iter().map(move |locality| LocalityLbEndpoints {
                    locality: Some(core::Locality {
                        region: locality.locality.region.clone(),
                        zone: locality.locality.zone.clone(),
                        sub_zone: locality.locality.sub_zone.clone(),
                    }),
                    lb_endpoints: locality
                        .hosts
                        .iter()
                        .map(|host| LbEndpoint {
                            health_status: core::HealthStatus::Healthy as i32,
                            load_balancing_weight: Some(UInt32Value { value: host.weight() }),
                            host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                                address: Some(address(&host.address)),
                                hostname: host.hostname.to_string(),
                                ..Default::default()
                            })),
                            ..Default::default()
                        })
                        .collect(),
                    priority: u32::try_from(priority).unwrap_or(u32::MAX),
                    ..Default::default()
                })
            })
            .collect();
        let assignment = ClusterLoadAssignment {
            cluster_name: cluster.info.name.to_string(),
            endpoints,
            ..Default::default()
        };
        let packed = Some(xds_protos::any::pack(&assignment));
        if cluster.info.added_via_api {
            dump.dynamic_endpoint_configs.push(endpoints::DynamicEndpointConfig {
                endpoint_config: packed,
                ..Default::default()
            });
        } else {
            dump.static_endpoint_configs.push(endpoints::StaticEndpointConfig {
                endpoint_config: packed,
                ..Default::default()
            });
        }
    }
    dump
}
