//! `/listeners`

use serde_json::json;

use super::{AdminRequest, Reply};
use crate::net::Address;

/// `/listeners`, in text or JSON.
pub(super) fn listeners(request: &AdminRequest) -> Reply {
    let active = request.server.listeners.active();
    if request.param("format").as_deref() == Some("json") {
        let statuses: Vec<_> = active
            .iter()
            .map(|l| {
                let mut status = serde_json::Map::new();
                status.insert("name".into(), json!(*l.config.name));
                let mut addresses = l.bound.iter().map(address);
                if let Some(first) = addresses.next() {
                    status.insert("local_address".into(), first);
                }
                let more: Vec<_> = addresses.collect();
                if !more.is_empty() {
                    status.insert("additional_local_addresses".into(), more.into());
                }
                serde_json::Value::Object(status)
            })
            .collect();
        return Reply::json(super::reply::envoy_json(&json!({ "listener_statuses": statuses })));
    }
    let mut out = String::new();
    for listener in &active {
        for bound in &listener.bound {
            out.push_str(&format!("{}::{bound}\n", listener.config.name));
        }
    }
    Reply::text(out)
}

/// `/init_dump?mask=listener`: what listeners wait for.
pub(super) fn init_dump(request: &AdminRequest) -> Reply {
    let asked = request.param("mask").filter(|mask| !mask.is_empty());
    let waiting = match asked.as_deref() {
        None | Some("listener") => request.server.listeners.warming(),
        Some(_) => Vec::new(),
    };
    let dumps: Vec<_> = waiting
        .iter()
        .map(|(listener, targets)| {
            let targets: Vec<_> = targets.iter().map(|target| format!("target {target}")).collect();
            json!({
                "name": format!("init manager Listener-local-init-manager {}", listener.config.name),
                "target_names": targets,
            })
        })
        .collect();
    let dump = match dumps.is_empty() {
        true => json!({}),
        false => json!({ "unready_targets_dumps": dumps }),
    };
    Reply::json(super::reply::envoy_json(&dump))
}

fn address(address: &Address) -> serde_json::Value {
    match address {
        Address::Ip(a) => json!({ "socket_address": { "address": a.ip().to_string(), "port_value": a.port() } }),
        Address::Pipe(path) => json!({ "pipe": { "path": **path } }),
        Address::Internal { listener, endpoint } => {
            json!({ "envoy_internal_address": { "server_listener_name": **listener, "endpoint_id": **endpoint } })
        }
    }
}
