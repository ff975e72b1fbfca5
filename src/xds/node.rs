//! The node as control planes see it: what the bootstrap says, and what this proxy says of itself.

use std::collections::HashMap;

use xds_protos::{
    envoy::{
        config::core::v3::{BuildVersion, Extension, Node, node::UserAgentVersionType},
        r#type::v3::SemanticVersion,
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use crate::extensions::Registry;

/// The version of Envoy whose API and behaviour this is; control planes decide by it what they may send.
const ENVOY_VERSION: SemanticVersion = SemanticVersion {
    major_number: 1,
    minor_number: 40,
    patch: 0,
};

/// Completes the bootstrap's node as Envoy does: user agent, build version, extensions.
pub fn complete(mut node: Node, registry: &Registry) -> Node {
    // The name is Envoy's: control planes look for it.
    node.user_agent_name = "envoy".to_owned();
    let metadata = [
        ("build.type", if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" }),
        ("build.label", concat!("nuncio/", env!("CARGO_PKG_VERSION"))),
        ("revision.status", "Clean"),
        ("ssl.version", "AWS-LC"),
    ];
    let fields: HashMap<String, Value> = metadata
        .into_iter()
        .map(|(key, text)| (key.to_owned(), string(text)))
        .collect();
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
        version: Some(ENVOY_VERSION),
        metadata: Some(Struct { fields }),
    }));
    node.extensions = registry
        .http_filter_names()
        .map(|name| Extension {
            name: name.to_owned(),
            category: "envoy.filters.http".to_owned(),
            ..Extension::default()
        })
        .collect();
    node.extensions.sort_by(|a, b| a.name.cmp(&b.name));
    node
}

fn string(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    }
}
