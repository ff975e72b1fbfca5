//! From an `Any` of a response to the typed message, checked.

use xds_protos::{
    google::protobuf::Any,
    prost::{Message, Name},
};

use crate::config::{BuildCx, ConfigResult, unpack};

/// Opens and validates a dynamic resource.
pub fn open<P: Message + Name + Default>(any: &Any, cx: &BuildCx<'_>) -> ConfigResult<P> {
    unpack(any, cx)
}
