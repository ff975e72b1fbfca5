//! Opening an `Any`, with `TypedStruct` standing wherever an `Any` does.

use xds_protos::{
    google::protobuf::Any,
    prost::{Message, Name},
};

use super::{BuildCx, ConfigResult};

/// What an `Any` holds, by the part of its type URL after the last slash.
pub trait AnyExt {
    /// Full message name, for example `envoy.config.cluster.v3.Cluster`.
    fn type_name(&self) -> &str;
}

impl AnyExt for Any {
    fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

/// Opens `any` as `T`; the error names both types.
pub fn unpack<T: Message + Name + Default>(any: &Any, cx: &BuildCx<'_>) -> ConfigResult<T> {
    if any.type_name() != T::full_name() {
        return Err(cx.error(format!("expected {}, got {}", T::full_name(), any.type_name())));
    }
    T::decode(any.value.as_slice()).map_err(|e| cx.error(format!("Unable to unpack as {}: {e}", T::full_name())))
}
