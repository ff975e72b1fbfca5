//! Endpoints that tell or change the server's state.

use std::sync::atomic::Ordering;

use http::StatusCode;

use super::{AdminRequest, Reply};
use crate::server::State;

/// `/ready`
pub(super) fn ready(request: &AdminRequest) -> Reply {
    let state = request.server.state();
    let text = format!("{}\n", state.name());
    match state {
        State::Live => Reply::text(text),
        _ => Reply::error(StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

/// `/quitquitquit`
pub(super) fn quit(request: &AdminRequest) -> Reply {
    request.server.stop.notify_one();
    Reply::text("OK\n")
}

/// `/healthcheck/fail`
pub(super) fn healthcheck_fail(request: &AdminRequest) -> Reply {
    request.server.health_failed.store(true, Ordering::Relaxed);
    request.server.server_stats.local().live.set(0);
    Reply::text("OK\n")
}

/// `/healthcheck/ok`
pub(super) fn healthcheck_ok(request: &AdminRequest) -> Reply {
    request.server.health_failed.store(false, Ordering::Relaxed);
    request.server.server_stats.local().live.set(1);
    Reply::text("OK\n")
}

/// `/reopen_logs`
pub(super) fn reopen_logs(request: &AdminRequest) -> Reply {
    request.server.log_files.reopen();
    Reply::text("OK\n")
}

/// `/drain_listeners?graceful&skip_exit&inboundonly`
pub(super) fn drain_listeners(request: &AdminRequest) -> Reply {
    let inbound_only = request.has("inboundonly");
    let server = &request.server;
    let stay = request.has("skip_exit");
    if request.has("graceful") {
        server.listeners.drain_gracefully(inbound_only, stay, server);
        return Reply::text("OK\n");
    }
    // Without a drain period listeners stop at once; their connections are asked to go all the same.
    server.listeners.drain(inbound_only);
    if !stay {
        server.listeners.stop(inbound_only, server);
    }
    Reply::text("OK\n")
}
