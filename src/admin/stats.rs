//! `/stats`, `/stats/prometheus`, `/reset_counters`.

use http::StatusCode;

use super::{AdminRequest, Reply};
use crate::stats::render::{self, Format, Query};

/// `/stats`
pub(super) fn stats(request: &AdminRequest) -> Reply {
    match Query::parse(&request.query) {
        Ok(query) => rendered(request, query),
        Err(e) => Reply::error(StatusCode::BAD_REQUEST, e.to_string()),
    }
}

/// `/stats/prometheus`
pub(super) fn prometheus(request: &AdminRequest) -> Reply {
    match Query::parse_prometheus(&request.query) {
        Ok(query) => rendered(request, query),
        Err(e) => Reply::error(StatusCode::BAD_REQUEST, e.to_string()),
    }
}

fn rendered(request: &AdminRequest, query: Query) -> Reply {
    request.server.refresh_stats();
    let store = request.server.stats.clone();
    let content_type = match query.format {
        Format::Json => "application/json",
        _ => "text/plain; charset=UTF-8",
    };
    Reply::pieces(content_type, move |out| render::render(&store, &query, out))
}

/// `/stats/recentlookups`: names are put together only for readers, so none is ever looked up.
pub(super) fn recent_lookups(_: &AdminRequest) -> Reply {
    Reply::text("Names of statistics are not looked up while requests are served.\n\ntotal: 0\n")
}

/// `/reset_counters`
pub(super) fn reset_counters(request: &AdminRequest) -> Reply {
    request.server.stats.reset_counters();
    Reply::text("OK\n")
}
