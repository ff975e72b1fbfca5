//! Opening an `Any`, with `TypedStruct` standing wherever an `Any` does.

use xds_protos::{
    google::protobuf::Any,
    prost::{Message, Name},
    prost_reflect::ReflectMessage,
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

/// A `TypedStruct` turned into an `Any` of the message that it stands for; everything else as it is.
pub fn plain(any: Any, cx: &BuildCx<'_>) -> ConfigResult<Any> {
    if !any.type_name().ends_with(".TypedStruct") {
        return Ok(any);
    }
    let message = xds_protos::any::resolve(&any).map_err(|e| cx.error(e.to_string()))?;
    let type_url = format!("{}{}", xds_protos::TYPE_URL_PREFIX, message.descriptor().full_name());
    Ok(Any {
        type_url,
        value: message.encode_to_vec(),
    })
}

/// Opens `any` as `T`, which a `TypedStruct` may stand for, and checks it against the API's rules; the error names both
/// types.
pub fn unpack<T: Message + Name + Default>(any: &Any, cx: &BuildCx<'_>) -> ConfigResult<T> {
    if any.type_name().ends_with(".TypedStruct") && any.type_name() != T::full_name() {
        return unpack(&plain(any.clone(), cx)?, cx);
    }
    if any.type_name() != T::full_name() {
        return Err(cx.error(format!("expected {}, got {}", T::full_name(), any.type_name())));
    }
    let message = T::decode(any.value.as_slice())
        .map_err(|e| cx.error(format!("Unable to unpack as {}: {e}", T::full_name())))?;
    xds_protos::pgv::validate_typed(&message).map_err(|e| cx.error(e.to_string()))?;
    Ok(message)
}
