//! `/config_dump`: what is configured, as it came, with versions, times and what was refused. Secrets are redacted
//! by the printer, which knows the API's sensitive fields.

use http::StatusCode;
use indexmap::IndexMap;
use xds_protos::{
    dynamic,
    envoy::{
        admin::v3::{
            BootstrapConfigDump, ClientResourceStatus, ClustersConfigDump, ConfigDump, EcdsConfigDump,
            ListenersConfigDump, RoutesConfigDump, ScopedRoutesConfigDump, UpdateFailureState,
            clusters_config_dump as clusters, ecds_config_dump::EcdsFilterConfig, listeners_config_dump as listeners,
            routes_config_dump as routes, scoped_routes_config_dump as scopes,
        },
        config::{cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener},
    },
    google::protobuf::Any,
    print::{self, PrintOptions},
    prost::{Message, Name},
    prost_reflect::{ReflectMessage, Value},
};

use super::{
    AdminRequest, Reply,
    mask::{Mask, packed},
};
use crate::{
    listener::{ListenerSnapshot, RefusedListener},
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

/// `/config_dump?resource=FIELD&mask=FIELDS&name_regex=REGEX&include_eds`
pub(super) fn config_dump(request: &AdminRequest) -> Reply {
    let names = match request
        .param("name_regex")
        .filter(|f| !f.is_empty())
        .map(|f| regex::Regex::new(&format!("^(?:{f})$")).map_err(|_| f))
        .transpose()
    {
        Ok(names) => names,
        Err(regex) => {
            return Reply::plain_error(
                StatusCode::BAD_REQUEST,
                format!("INVALID_ARGUMENT: Error while parsing name_regex from {regex}"),
            );
        }
    };
    let keep = |name: &str| names.as_ref().is_none_or(|n| n.is_match(name));
    let dumps = dumps(request, &keep);
    let mask = request.param("mask");
    let configs = match request.param("resource") {
        Some(resource) => of_resource(dumps, &resource, mask.as_deref()),
        None => all(dumps, mask.as_deref()),
    };
    match configs {
        Ok(configs) => Reply::json(to_json(&ConfigDump { configs }) + "\n"),
        Err((status, reason)) => Reply::refused(status, reason),
    }
}

type Refused = (StatusCode, String);

/// Everything, in the order of the names that Envoy keeps the parts under.
fn dumps(request: &AdminRequest, keep: &dyn Fn(&str) -> bool) -> Vec<Any> {
    let server = &request.server;
    let mut bootstrap = (*server.bootstrap).clone();
    bootstrap.static_resources = server.static_resources.read();
    bootstrap.node = Some((*server.node).clone());
    let bootstrap = BootstrapConfigDump {
        bootstrap: Some(bootstrap),
        last_updated: Some(timestamp(server.started.0)),
    };
    let mut dumps = vec![
        xds_protos::any::pack(&bootstrap),
        xds_protos::any::pack(&clusters_dump(server, keep)),
    ];
    // Envoy shows none of these while nothing is discovered.
    let extensions: Vec<_> = server
        .xds
        .extensions
        .applied()
        .iter()
        .filter(|e| keep(&e.name))
        .map(|e| EcdsFilterConfig {
            version_info: e.version.clone(),
            ecds_filter: Some(e.resource.clone()),
            last_updated: Some(timestamp(e.last_updated)),
            ..Default::default()
        })
        .collect();
    if !extensions.is_empty() {
        dumps.push(xds_protos::any::pack(&EcdsConfigDump {
            ecds_filters: extensions,
        }));
    }
    if request.has("include_eds") {
        let mut endpoints = admin::endpoints_dump(server);
        let keep = |any: Option<&Any>| keep(&assignment_name(any));
        endpoints
            .static_endpoint_configs
            .retain(|e| keep(e.endpoint_config.as_ref()));
        endpoints
            .dynamic_endpoint_configs
            .retain(|e| keep(e.endpoint_config.as_ref()));
        dumps.push(xds_protos::any::pack(&endpoints));
    }
    dumps.push(xds_protos::any::pack(&listeners_dump(server, keep)));
    dumps.push(xds_protos::any::pack(&scopes_dump(server, keep)));
    dumps.push(xds_protos::any::pack(&routes_dump(server, keep)));
    let mut secrets = crate::tls::secrets_config_dump(server);
    secrets.static_secrets.retain(|s| keep(&s.name));
    secrets.dynamic_active_secrets.retain(|s| keep(&s.name));
    secrets.dynamic_warming_secrets.retain(|s| keep(&s.name));
    dumps.push(xds_protos::any::pack(&secrets));
    dumps
}

/// All parts; with a mask those that have its fields, and of them only these.
fn all(dumps: Vec<Any>, mask: Option<&str>) -> Result<Vec<Any>, Refused> {
    let Some(mask) = mask else { return Ok(dumps) };
    let fields = Mask::parse(mask);
    let masked: Vec<_> = dumps
        .iter()
        .filter_map(|any| {
            let mut message = dynamic::from_any(any).ok()?;
            fields.trim(&mut message).then(|| packed(&message))
        })
        .collect();
    if masked.is_empty() {
        let reason = format!("FieldMask {mask} could not be successfully applied to any configs.");
        return Err((StatusCode::BAD_REQUEST, reason));
    }
    Ok(masked)
}

/// The elements of one repeated field of the first part that has it.
fn of_resource(dumps: Vec<Any>, resource: &str, mask: Option<&str>) -> Result<Vec<Any>, Refused> {
    let found = dumps.iter().find_map(|any| {
        let message = dynamic::from_any(any).ok()?;
        let field = message.descriptor().get_field_by_name(resource)?;
        Some((message, field))
    });
    let Some((message, field)) = found else {
        return Err((StatusCode::NOT_FOUND, format!("{resource} not found in config dump")));
    };
    let value = message.get_field(&field);
    let Value::List(elements) = &*value else {
        let reason = format!("{resource} is not a repeated field. Use ?mask={resource} to get only this field");
        return Err((StatusCode::BAD_REQUEST, reason));
    };
    let mut configs = Vec::with_capacity(elements.len());
    for element in elements {
        let Value::Message(element) = element else { continue };
        let mut element = element.clone();
        if let Some(mask) = mask
            && !Mask::parse(mask).trim_resource(&mut element)
        {
            let reason = format!("FieldMask {mask} could not be successfully used.");
            return Err((StatusCode::BAD_REQUEST, reason));
        }
        configs.push(packed(&element));
    }
    Ok(configs)
}

fn listeners_dump(server: &ServerContext, keep: &dyn Fn(&str) -> bool) -> ListenersConfigDump {
    let mut dump = ListenersConfigDump {
        version_info: server.xds.inventory.version(&xds_protos::type_url::<Listener>()),
        ..Default::default()
    };
    let state = |l: &ListenerSnapshot| {
        Some(listeners::DynamicListenerState {
            version_info: l.version.to_string(),
            listener: Some(l.resource.clone()),
            last_updated: Some(timestamp(l.last_updated)),
        })
    };
    // In the order in which they are first told of.
    let mut dynamic: IndexMap<String, listeners::DynamicListener> = IndexMap::new();
    let mut of = |name: &str, set: &mut dyn FnMut(&mut listeners::DynamicListener)| {
        let listener = dynamic.entry(name.to_owned()).or_default();
        listener.name = name.to_owned();
        set(listener);
    };
    let known = server.listeners.dump();
    for listener in known.active.iter().filter(|l| keep(&l.config.name)) {
        if listener.is_static {
            dump.static_listeners.push(listeners::StaticListener {
                listener: Some(listener.resource.clone()),
                last_updated: Some(timestamp(listener.last_updated)),
            });
        } else {
            of(&listener.config.name, &mut |l| l.active_state = state(listener));
        }
    }
    for listener in known.warming.iter().filter(|l| keep(&l.config.name)) {
        of(&listener.config.name, &mut |l| l.warming_state = state(listener));
    }
    for listener in known.draining.iter().filter(|l| keep(&l.config.name)) {
        of(&listener.config.name, &mut |l| l.draining_state = state(listener));
    }
    let failure = |refused: &RefusedListener| UpdateFailureState {
        failed_configuration: Some(refused.resource.clone()),
        details: refused.details.clone(),
        ..Default::default()
    };
    for refused in known.refused.iter().filter(|r| !r.name.is_empty()) {
        of(&refused.name, &mut |l| {
            l.error_state = Some(UpdateFailureState {
                last_update_attempt: Some(timestamp(refused.time)),
                ..failure(refused)
            });
        });
    }
    // Envoy tells of each once more, without its name.
    let unnamed = known.refused.iter().map(|refused| listeners::DynamicListener {
        error_state: Some(failure(refused)),
        ..Default::default()
    });
    dump.dynamic_listeners = dynamic.into_values().chain(unnamed).collect();
    dump
}

fn scopes_dump(server: &ServerContext, keep: &dyn Fn(&str) -> bool) -> ScopedRoutesConfigDump {
    let mut dump = ScopedRoutesConfigDump::default();
    for shown in server.xds.scopes.shown() {
        let scoped_route_configs = shown
            .scopes
            .into_iter()
            .filter(|(name, _)| keep(name))
            .map(|(_, resource)| resource)
            .collect();
        let last_updated = Some(timestamp(shown.last_updated));
        match shown.version {
            None => dump.inline_scoped_route_configs.push(scopes::InlineScopedRouteConfigs {
                name: shown.name,
                scoped_route_configs,
                last_updated,
            }),
            Some(version_info) => dump
                .dynamic_scoped_route_configs
                .push(scopes::DynamicScopedRouteConfigs {
                    name: shown.name,
                    version_info,
                    scoped_route_configs,
                    last_updated,
                    ..Default::default()
                }),
        }
    }
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
    let dynamic = RouteConfigs::applied(&server.xds.routes)
        .iter()
        .filter(|r| keep(&r.name))
        .map(|r| routes::DynamicRouteConfig {
            version_info: r.version.clone(),
            route_config: Some(r.resource.clone()),
            last_updated: Some(timestamp(r.last_updated)),
            // Envoy does not show refused routes here.
            error_state: None,
            client_status: ClientResourceStatus::Unknown as i32,
        })
        .collect();
    let fixed = RouteConfigs::inline(&server.xds.routes);
    RoutesConfigDump {
        static_route_configs: fixed
            .into_iter()
            .filter(|r| keep(&r.name))
            .map(|r| routes::StaticRouteConfig {
                route_config: Some(r.resource),
                last_updated: Some(timestamp(r.last_updated)),
            })
            .collect(),
        dynamic_route_configs: dynamic,
    }
}
