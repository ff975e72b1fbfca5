//! Reason phrases of HTTP/1 responses, as Envoy has them.

use http::StatusCode;

/// Envoy's phrase; `Unknown` for a status that it has no name for.
pub(super) fn phrase(status: StatusCode) -> &'static str {
    match status.as_u16() {
        203 => "Non-Authoritative Information",
        102 | 103 | 418 | 451 => "Unknown",
        599 => "Last Unassigned Server Error Code",
        _ => status.canonical_reason().unwrap_or("Unknown"),
    }
}
