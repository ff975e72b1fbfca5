//! `/logging`: one level for all, as the process log has it.

use http::StatusCode;

use super::{AdminRequest, Reply};
use crate::server::log;

/// Envoy's names of loggers that tools look for.
const LOGGERS: [&str; 24] = [
    "admin",
    "client",
    "config",
    "connection",
    "conn_handler",
    "dns",
    "ext_authz",
    "file",
    "filter",
    "forward_proxy",
    "grpc",
    "hc",
    "health_checker",
    "http",
    "http2",
    "init",
    "jwt",
    "main",
    "pool",
    "rbac",
    "router",
    "runtime",
    "secret",
    "upstream",
];

/// `/logging?level=LEVEL`, `?paths=a:LEVEL,b:LEVEL`, or nothing to ask.
pub(super) fn logging(request: &AdminRequest) -> Reply {
    let asked = request.param("level").or_else(|| {
        request
            .param("paths")
            .or_else(|| request.param("group"))
            .and_then(|p| p.rsplit(':').next().map(str::to_owned))
    });
    if let Some(level) = asked.filter(|l| !l.is_empty())
        && !log::set_level(&level)
    {
        return Reply::error(StatusCode::BAD_REQUEST, "error: invalid logger level\n");
    }
    let level = log::current_level();
    let mut out = String::from("active loggers:\n");
    for logger in LOGGERS {
        out.push_str(&format!("  {logger}: {level}\n"));
    }
    out.push('\n');
    Reply::text(out)
}
