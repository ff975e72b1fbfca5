//! From an `Any` of a response to the typed message, checked.

use xds_protos::{
    check, dynamic,
    google::protobuf::Any,
    prost::{Message, Name},
};

use crate::config::{BuildCx, ConfigResult, unpack};

/// Opens a dynamic resource, validates it, and looks for fields the API does not have.
///
/// Unknown fields are warned about and counted as `server.dynamic_unknown_fields`, as Envoy does unless it is told to
/// refuse them.
pub fn open<P: Message + Name + Default>(any: &Any, cx: &BuildCx<'_>) -> ConfigResult<P> {
    let typed = unpack(any, cx)?;
    // A type outside the API cannot be looked into.
    if let Ok(message) = dynamic::from_any(any) {
        for finding in check::unknown(&message) {
            tracing::warn!("Unknown field: {finding}");
            let scope = cx.server.stats.scope("server.");
            scope.counter("dynamic_unknown_fields").inc();
        }
    }
    Ok(typed)
}
