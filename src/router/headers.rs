//! Headers that the router checks and adds.

use http::{HeaderName, HeaderValue, StatusCode};

use super::{RouterConfig, number};
use crate::http::{Flag, LocalReply, RequestHead, ResponseHead, StreamInfo};

const ALT_STAT_NAME: HeaderName = HeaderName::from_static("x-envoy-upstream-alt-stat-name");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// `strict_check_headers`: a header that steers the router and does not parse is the client's error.
pub(super) fn strict_check(head: &RequestHead, config: &RouterConfig) -> Result<(), Box<LocalReply>> {
    for name in &config.strict_check_headers {
        let Some(text) = number::joined(&head.headers, name) else {
            continue;
        };
        let good = match name.as_str() {
            "x-envoy-retry-on" => crate::route::RetryOn::parse_http(&text).1,
            "x-envoy-retry-grpc-on" => crate::route::RetryOn::parse_grpc(&text).1,
            _ => number::unsigned(&text).is_some(),
        };
        if !good {
            let body = format!("invalid header '{name}' with value '{text}'");
            let details = format!("request_headers_failed_strict_check{{{name}}}");
            return Err(Box::new(
                LocalReply::new(StatusCode::BAD_REQUEST, body, details).flag(Flag::InvalidEnvoyRequestHeaders),
            ));
        }
    }
    Ok(())
}

/// `x-envoy-upstream-service-time`: from the end of the request to the head of the response, in milliseconds. A
/// response that comes before the request has ended, as to an upgrade, has none.
pub(super) fn response(head: &mut ResponseHead, info: &StreamInfo, config: &RouterConfig) {
    if config.suppress_envoy_headers || !info.progress.request_complete.get() {
        return;
    }
    // An answer before the end of the request says nothing of the upstream's speed.
    let Some(received) = info.progress.last_downstream_rx.get() else {
        return;
    };
    let came = info.progress.first_upstream_rx.get().unwrap_or(received);
    let millis = u64::try_from(came.saturating_duration_since(received).as_millis()).unwrap_or(u64::MAX);
    head.headers.insert(SERVICE_TIME, HeaderValue::from(millis));
}

/// Whether the request is a WebSocket's handshake.
pub(super) fn asks_for_websocket(head: &RequestHead) -> bool {
    let upgrade = head.headers.get(http::header::UPGRADE);
    upgrade.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// `x-envoy-upstream-alt-stat-name`, taken off: a second name below which responses count.
pub(super) fn alternative_stat_name(head: &mut RequestHead) -> Option<String> {
    number::take(&mut head.headers, &ALT_STAT_NAME)
}

/// Whether the connection manager found the request to come from inside.
pub(super) fn is_internal(head: &RequestHead) -> bool {
    head.headers.get(INTERNAL).is_some_and(|v| v == "true")
}
