//! A workload in the form of its proxy's node metadata: what `x-envoy-peer-metadata` carries, and what proxies exchange
//! at the start of a connection.

use std::collections::{BTreeMap, BTreeSet};

use xds_protos::{
    envoy::config::core::v3::{Locality, Node},
    google::protobuf::{ListValue, Struct, Value, value::Kind},
    prost::Message,
};

use super::{WorkloadMetadata, WorkloadType, text};

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
const QUALIFIED_APP: &str = "app.kubernetes.io/name";
const APP: &str = "app";
const QUALIFIED_VERSION: &str = "app.kubernetes.io/version";
const VERSION: &str = "version";

/// Names of labels to tell besides those that every workload has.
pub type AdditionalLabels = BTreeSet<String>;

impl WorkloadMetadata {
    /// This proxy's own workload, as its bootstrap describes it.
    pub fn of_node(node: &Node, labels: &AdditionalLabels) -> Self {
        let empty = Struct::default();
        let mut own = Self::of_struct(node.metadata.as_ref().unwrap_or(&empty), labels);
        if let Some(Locality { region, zone, .. }) = &node.locality {
            for (known, told) in [(&mut own.region, region), (&mut own.zone, zone)] {
                if known.is_empty() {
                    known.clone_from(told);
                }
            }
        }
        own
    }

    /// Reads node metadata. What it lacks, or has in a form of its own, stays empty.
    pub fn of_struct(metadata: &Struct, additional: &AdditionalLabels) -> Self {
        let field = |name| string(metadata, name).to_owned();
        let none = Struct::default();
        let labels = match metadata.fields.get("LABELS").and_then(|v| v.kind.as_ref()) {
            Some(Kind::StructValue(labels)) => labels,
            _ => &none,
        };
        let label = |name| string(labels, name).to_owned();
        let first = |qualified, name| {
            Some(label(qualified))
                .filter(|v| !v.is_empty())
                .unwrap_or_else(|| label(name))
        };
        let workload_name = field("WORKLOAD_NAME");
        let known = [
            CANONICAL_NAME,
            CANONICAL_REVISION,
            QUALIFIED_APP,
            APP,
            QUALIFIED_VERSION,
            VERSION,
        ];
        let asked_for = additional.iter().filter(|name| !known.contains(&name.as_str()));
        Self {
            instance_name: field("NAME"),
            cluster_name: field("CLUSTER_ID"),
            namespace_name: field("NAMESPACE"),
            canonical_name: label(CANONICAL_NAME),
            canonical_revision: label(CANONICAL_REVISION),
            app_name: first(QUALIFIED_APP, APP),
            app_version: first(QUALIFIED_VERSION, VERSION),
            workload_type: type_of_owner(string(metadata, "OWNER"), &workload_name),
            workload_name,
            identity: field("IDENTITY"),
            region: field("REGION"),
            zone: field("AVAILABILITY_ZONE"),
            labels: asked_for
                .filter(|name| labels.fields.contains_key(*name))
                .map(|name| (name.clone(), label(name)))
                .collect(),
        }
    }

    /// As node metadata.
    pub fn to_struct(&self) -> Struct {
        let labels = [
            (CANONICAL_NAME, &self.canonical_name),
            (CANONICAL_REVISION, &self.canonical_revision),
            (APP, &self.app_name),
            (VERSION, &self.app_version),
        ];
        let labels = labels.into_iter().filter(|(_, v)| !v.is_empty());
        let more = self.labels.iter().map(|(k, v)| (k.as_str(), v));
        let labels = labels.chain(more).map(|(k, v)| (k.to_owned(), text(v)));
        let labels = Kind::StructValue(Struct {
            fields: labels.collect(),
        });
        let owner = self.owner().unwrap_or_default();
        let fields = [
            ("NAME", &self.instance_name),
            ("NAMESPACE", &self.namespace_name),
            ("WORKLOAD_NAME", &self.workload_name),
            ("CLUSTER_ID", &self.cluster_name),
            ("IDENTITY", &self.identity),
            ("OWNER", &owner),
            ("REGION", &self.region),
            ("AVAILABILITY_ZONE", &self.zone),
        ];
        let fields = fields.into_iter().filter(|(_, v)| !v.is_empty());
        let mut metadata = Struct {
            fields: fields.map(|(k, v)| (k.to_owned(), text(v))).collect(),
        };
        // There even when it is empty, as in Istio's.
        let labels = Value { kind: Some(labels) };
        metadata.fields.insert("LABELS".to_owned(), labels);
        metadata
    }
}

/// A text of a struct; empty when it is not there or no text.
pub fn string<'s>(from: &'s Struct, name: &str) -> &'s str {
    match from.fields.get(name).and_then(|v| v.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

/// `.../namespaces/NS/deployments/NAME`
fn type_of_owner(owner: &str, workload: &str) -> WorkloadType {
    // The plural's s and the slash.
    let kind = owner
        .len()
        .checked_sub(workload.len() + 2)
        .and_then(|end| owner.get(..end));
    let kind = kind.and_then(|path| path.rsplit_once('/'));
    kind.map_or(WorkloadType::Unknown, |(_, kind)| WorkloadType::from_name(kind))
}

/// A struct's bytes with its fields in the order of their names, so that equal structs have equal bytes.
pub fn encode_sorted(value: &Struct) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in value.fields.iter().collect::<BTreeMap<_, _>>() {
        let mut entry = Vec::new();
        put(&mut entry, 1, key.as_bytes());
        put(&mut entry, 2, &encode_value(value));
        put(&mut bytes, 1, &entry);
    }
    bytes
}

fn encode_value(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match &value.kind {
        Some(Kind::StructValue(inner)) => put(&mut bytes, 5, &encode_sorted(inner)),
        Some(Kind::ListValue(ListValue { values })) => {
            let mut list = Vec::new();
            for value in values {
                put(&mut list, 1, &encode_value(value));
            }
            put(&mut bytes, 6, &list);
        }
        _ => bytes = value.encode_to_vec(),
    }
    bytes
}

/// A length-delimited field.
fn put(bytes: &mut Vec<u8>, field: u8, value: &[u8]) {
    bytes.push(field << 3 | 2);
    // Writing to a Vec cannot fail.
    let _ = xds_protos::prost::encode_length_delimiter(value.len(), bytes);
    bytes.extend_from_slice(value);
}
