use prost::Message;

use super::*;
use crate::load::{self, LoadOptions, Syntax};

fn dynamic(message: &str, yaml: &str) -> DynamicMessage {
    load::from_str(yaml, Syntax::Yaml, message, &LoadOptions::default())
        .unwrap()
        .message
}

#[test]
fn deprecated_fields_and_values_are_found_with_their_place() {
    let yaml = "static_resources: {clusters: [{name: c, http2_protocol_options: {}}]}";
    let found = deprecated(&dynamic("envoy.config.bootstrap.v3.Bootstrap", yaml));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "static_resources.clusters[0]");
    assert_eq!(
        found[0].to_string(),
        "Using deprecated option 'envoy.config.cluster.v3.Cluster.http2_protocol_options' from file cluster.proto. This \
         configuration will be removed from Envoy soon."
    );
    assert_eq!(
        found[0].runtime_key().unwrap(),
        "envoy.deprecated_features:envoy.config.cluster.v3.Cluster.http2_protocol_options"
    );

    let found = deprecated(&dynamic("envoy.config.core.v3.ApiConfigSource", "{}"));
    assert_eq!(
        found[0].to_string(),
        "Using the default now-deprecated value DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE for enum \
         'envoy.config.core.v3.ApiConfigSource.api_type' from file config_source.proto. This enum value will be removed \
         from Envoy soon so a non-default value must now be explicitly set."
    );
    assert!(matches!(
        &found[0].kind,
        FindingKind::Deprecated { disallowed: true, .. }
    ));
    assert_eq!(
        found[0].runtime_key().unwrap(),
        "envoy.deprecated_features:envoy.config.core.v3.ApiConfigSource.DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE"
    );
    assert_eq!(
        deprecated(&dynamic("envoy.config.core.v3.ApiConfigSource", "{api_type: GRPC}")),
        []
    );
}

#[test]
fn what_is_packed_in_an_any_is_looked_at_too() {
    let yaml = "{name: c, typed_extension_protocol_options: {a: {\"@type\": \
                type.googleapis.com/envoy.config.cluster.v3.Cluster, http2_protocol_options: {}}}}";
    let found = deprecated(&dynamic("envoy.config.cluster.v3.Cluster", yaml));
    assert_eq!(found[0].path, "typed_extension_protocol_options[\"a\"]");
}

#[test]
fn unknown_fields_of_bytes_are_found_by_number() {
    let locality = dynamic("envoy.config.core.v3.Locality", "zone: z");
    assert_eq!(unknown(&locality), []);
    let mut bytes = locality.encode_to_vec();
    bytes.extend_from_slice(&[0xf8, 0x7f, 0x01]); // field 2047
    let locality = crate::dynamic::from_bytes("envoy.config.core.v3.Locality", &bytes).unwrap();
    let found = unknown(&locality);
    assert_eq!(
        found[0].to_string(),
        "Protobuf message (type envoy.config.core.v3.Locality with unknown field set {2047}) has unknown fields"
    );
}

#[test]
fn work_in_progress_is_found() {
    let found = findings(&dynamic(
        "envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig",
        "filename: f",
    ));
    assert!(
        matches!(&found[0].kind, FindingKind::WorkInProgress { .. }),
        "{found:?}"
    );
}
