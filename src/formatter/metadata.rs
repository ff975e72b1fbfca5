//! Metadata operators: dynamic, cluster, host, route, listener.

use xds_protos::{
    envoy::config::core::v3::Metadata as ProtoMetadata,
    google::protobuf::{Struct, Value, value::Kind as ValueKind},
};

use super::{
    FormatCx,
    command::{Kind, put},
    json::{write_number, write_struct, write_value},
};
use crate::{http::stream_info::Metadata, matching::struct_path};

/// Whose metadata.
#[derive(Debug, Clone, Copy)]
pub(super) enum MetadataSource {
    Dynamic,
    Cluster,
    UpstreamHost,
    Route,
    VirtualHost,
    Listener,
    FilterChain,
}

impl MetadataSource {
    /// The type in `%METADATA(TYPE:..)%`.
    pub(super) fn parse(kind: &str) -> Option<Self> {
        Some(match kind {
            "DYNAMIC" => Self::Dynamic,
            "CLUSTER" => Self::Cluster,
            "ROUTE" => Self::Route,
            "UPSTREAM_HOST" => Self::UpstreamHost,
            "LISTENER" => Self::Listener,
            "LISTENER_FILTER_CHAIN" => Self::FilterChain,
            "VIRTUAL_HOST" => Self::VirtualHost,
            _ => return None,
        })
    }
}

/// Writes the value at a path, or the whole struct of the namespace without one.
pub(super) fn write(
    source: MetadataSource,
    namespace: &str,
    path: &[String],
    out: &mut Vec<u8>,
    cx: &FormatCx<'_>,
) -> Option<Kind> {
    let of = |m: &Metadata, out: &mut Vec<u8>| write_at(m.get(namespace)?, path, out);
    let of_proto = |m: &ProtoMetadata, out: &mut Vec<u8>| write_at(m.filter_metadata.get(namespace)?, path, out);
    let info = cx.info;
    match source {
        MetadataSource::Dynamic => of(&info.metadata, out),
        MetadataSource::Cluster => of(info.upstream.cluster_metadata.as_deref()?, out),
        MetadataSource::UpstreamHost => of(&info.upstream.host.as_ref()?.attributes().metadata, out),
        MetadataSource::Route => of_proto(info.route_metadata.as_deref()?, out),
        MetadataSource::VirtualHost => of_proto(info.virtual_host_metadata.as_deref()?, out),
        MetadataSource::Listener => of_proto(info.connection.listener_metadata.as_deref()?, out),
        MetadataSource::FilterChain => of_proto(info.connection.filter_chain_metadata.as_deref()?, out),
    }
}

fn write_at(root: &Struct, path: &[String], out: &mut Vec<u8>) -> Option<Kind> {
    if path.is_empty() {
        write_struct(root, out);
        return Some(Kind::Json);
    }
    let value: &Value = struct_path(root, path)?;
    match value.kind.as_ref()? {
        ValueKind::NullValue(_) => None,
        ValueKind::StringValue(text) => put(out, text.as_bytes()),
        ValueKind::NumberValue(n) => {
            write_number(*n, out);
            Some(Kind::Number)
        }
        ValueKind::BoolValue(_) | ValueKind::StructValue(_) | ValueKind::ListValue(_) => {
            write_value(value, out);
            Some(Kind::Json)
        }
    }
}
