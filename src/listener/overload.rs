//! Whether a connection just accepted is let in: the limits of the process and the overload manager.

use std::sync::{Arc, atomic::Ordering};

use super::ListenerConfig;
use crate::server::{
    OverloadManager, ServerContext,
    overload::{Action, ConnectionLimit, Point},
};

/// Why a connection is closed at once.
pub(super) enum TurnedAway {
    /// `downstream_global_cx_overflow`
    GlobalLimit,
    /// `downstream_cx_overload_reject`
    Overload,
}

/// A connection's part of the limit that the overload manager keeps.
pub(super) struct Claimed(Arc<ConnectionLimit>);

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Lets a connection in or not, in Envoy's order: the global limit first, which the overload manager's monitor
/// replaces when there is one. A listener that bypasses the overload manager knows only the runtime's limits.
pub(super) fn admit(config: &ListenerConfig, server: &ServerContext) -> Result<Option<Claimed>, TurnedAway> {
    let overload = server.overload().filter(|_| !config.bypass_overload);
    let mut claimed = None;
    if !config.ignore_global_limit {
        match overload.and_then(|o| o.connections.as_ref()) {
            Some(limit) if limit.claim() => claimed = Some(Claimed(limit.clone())),
            Some(_) => return Err(TurnedAway::GlobalLimit),
            None => {
                let limit = &server.runtime.known.global_downstream_max_connections;
                if server.connections.load(Ordering::Relaxed) >= limit.integer(u64::MAX) {
                    return Err(TurnedAway::GlobalLimit);
                }
            }
        }
    }
    let turns_away =
        |o: &OverloadManager| o.sheds(Point::TcpListenerAccept) || o.takes(Action::RejectIncomingConnections);
    match overload.is_some_and(|o| turns_away(o)) {
        true => Err(TurnedAway::Overload),
        false => Ok(claimed),
    }
}
