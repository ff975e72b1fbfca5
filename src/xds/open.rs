//! From an `Any` of a response to the typed message, checked.

use std::sync::Arc;

use xds_protos::{
    check, dynamic,
    google::protobuf::Any,
    prost::{Message, Name},
};

use super::Resource;
use crate::{
    config::{BuildCx, ConfigResult, unpack},
    server::ServerContext,
};

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

/// Opens all resources of an update, in their order. Whether all could be opened is said, too: a state of the world
/// that cannot be read as a whole does not tell what is gone.
pub(super) fn open_all<P: Message + Name + Default>(
    resources: Vec<Resource>,
    server: &Arc<ServerContext>,
) -> (Vec<(Resource, ConfigResult<P>)>, bool) {
    let opened: Vec<_> = resources
        .into_iter()
        .map(|resource| {
            let message = open(&resource.any, &BuildCx::new(server));
            (resource, message)
        })
        .collect();
    let all = opened.iter().all(|(_, message)| message.is_ok());
    (opened, all)
}
