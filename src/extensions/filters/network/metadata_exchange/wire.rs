//! The exchange on the wire: a magic number, a length, and an `Any` of a struct with the sender's node metadata.

use bytes::Buf;
use xds_protos::{
    google::protobuf::{Any, Struct, Value, value::Kind},
    prost::{Message, Name},
};

use crate::{
    config::AnyExt,
    extensions::common::workload::{
        WorkloadMetadata,
        node::{AdditionalLabels, encode_sorted},
    },
};

const MAGIC: u32 = 0x3D23_0467;

/// Bytes of magic number and length.
pub(super) const HEADER: usize = 8;

/// The longest metadata that are read, in bytes; Istio's are one or two thousand, and Envoy has no limit.
pub(super) const LONGEST: usize = 64 * 1024;

const METADATA: &str = "x-envoy-peer-metadata";
const METADATA_ID: &str = "x-envoy-peer-metadata-id";

/// What is sent of a workload.
pub(super) fn message(workload: &WorkloadMetadata, node_id: &str) -> Vec<u8> {
    let value = |kind| Value { kind: Some(kind) };
    let mut told = Struct::default();
    let metadata = value(Kind::StructValue(workload.to_struct()));
    told.fields.insert(METADATA.to_owned(), metadata);
    if !node_id.is_empty() {
        let id = value(Kind::StringValue(node_id.to_owned()));
        told.fields.insert(METADATA_ID.to_owned(), id);
    }
    let any = Any {
        type_url: Struct::type_url(),
        value: encode_sorted(&told),
    };
    let any = any.encode_to_vec();
    let length = u32::try_from(any.len()).unwrap_or(u32::MAX);
    [&MAGIC.to_be_bytes()[..], &length.to_be_bytes()[..], &any].concat()
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Not all of it has come.
    Short,
    /// It is none: the peer exchanges nothing.
    None,
    /// So many bytes of metadata follow.
    Of(usize),
    /// More follow than are read.
    TooLong,
}

/// Reads the header at the start of what has come.
pub(super) fn header(mut bytes: &[u8]) -> Header {
    if bytes.len() < HEADER {
        return Header::Short;
    }
    if bytes.get_u32() != MAGIC {
        return Header::None;
    }
    match usize::try_from(bytes.get_u32()) {
        Ok(length) if length <= LONGEST => Header::Of(length),
        _ => Header::TooLong,
    }
}

/// What metadata say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    /// They are no `Any`, or one of something else.
    Unreadable,
    /// They tell of no workload.
    Nothing,
    /// They tell of this one.
    Of(Box<WorkloadMetadata>),
}

/// Reads the metadata.
pub(super) fn metadata(bytes: &[u8], labels: &AdditionalLabels) -> Metadata {
    let any = Any::decode(bytes)
        .ok()
        .filter(|any| any.type_name() == Struct::full_name());
    let Some(told) = any.and_then(|any| Struct::decode(any.value.as_slice()).ok()) else {
        return Metadata::Unreadable;
    };
    match told.fields.get(METADATA).map(|v| &v.kind) {
        Some(Some(Kind::StructValue(metadata))) => {
            Metadata::Of(Box::new(WorkloadMetadata::of_struct(metadata, labels)))
        }
        Some(_) => Metadata::Of(Box::default()),
        None => Metadata::Nothing,
    }
}
