//! `/runtime` and `/runtime_modify`.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    AdminRequest, Reply,
    reply::{envoy_json, parameters},
};
use crate::runtime::ModifyError;

/// `/runtime`: every key with its text in every layer, and the one that counts.
pub(super) fn runtime(request: &AdminRequest) -> Reply {
    let snapshot = request.server.runtime.snapshot();
    let layers = snapshot.layers();
    let keys: BTreeSet<_> = layers.iter().flat_map(|layer| layer.values.keys()).collect();
    let mut entries = Map::new();
    for key in keys {
        let texts: Vec<&str> = layers
            .iter()
            .map(|layer| layer.values.get(key).map_or("", |entry| entry.raw.as_str()))
            .collect();
        let last = texts.iter().rev().find(|text| !text.is_empty()).copied();
        entries.insert(
            key.to_string(),
            json!({ "final_value": last.unwrap_or_default(), "layer_values": texts }),
        );
    }
    let layers: Vec<_> = layers.iter().map(|layer| layer.name.as_str()).collect();
    Reply::json(envoy_json(
        &json!({ "layers": layers, "entries": Value::Object(entries) }),
    ))
}

/// `/runtime_modify?key1=value1&key2=value2`, or the same as the form in the body.
pub(super) fn modify(request: &AdminRequest) -> Reply {
    let mut values = parameters(&request.query);
    if values.is_empty() && request.is_form {
        values = parameters(&String::from_utf8_lossy(&request.body));
    }
    if values.is_empty() {
        return Reply::error(
            StatusCode::BAD_REQUEST,
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form \
             values\nuse an empty value to remove a previously added override",
        );
    }
    match request.server.runtime.modify(values) {
        Ok(()) => Reply::text("OK\n"),
        Err(error @ (ModifyError::NoAdminLayer | ModifyError::Unreadable(_))) => {
            Reply::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
    }
}
