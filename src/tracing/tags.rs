//! What every span is told at its end: Envoy's names and values.

use std::time::{Instant, SystemTime};

use http::{HeaderMap, StatusCode, Version};

use super::Span;
use crate::http::{RequestHead, ResponseHead, StreamInfo, stream_info::Progress};

/// Calls that were given up by this side.
pub const CANCELED: &str = "canceled";
/// What is wrong.
pub const ERROR: &str = "error";
/// How an attempt was reset.
pub const ERROR_REASON: &str = "error.reason";
/// `grpc-status`
pub const GRPC_STATUS: &str = "grpc.status_code";
/// Status of a response.
pub const HTTP_STATUS: &str = "http.status_code";
/// Who is on the other side.
pub const PEER_ADDRESS: &str = "peer.address";
/// How many attempts there were before.
pub const RETRY_COUNT: &str = "retry.count";
/// The host of an attempt.
pub const UPSTREAM_ADDRESS: &str = "upstream_address";
/// Where it went.
pub const UPSTREAM_CLUSTER: &str = "upstream_cluster";

/// The tags of a request's span that tell of the request and its answer.
pub fn of_request(span: &Span, request: Option<&RequestHead>, response: Option<&ResponseHead>, info: &StreamInfo) {
    let config = span.config();
    if let Some(head) = request {
        let header = |name: &str| head.get(name).map(|v| String::from_utf8_lossy(v).into_owned());
        if let Some(id) = header("x-request-id") {
            span.set_tag("guid:x-request-id", id);
        }
        span.set_tag("http.url", url(head, config.max_path_tag_length));
        span.set_tag("http.method", head.method.as_str());
        let cluster = header("x-envoy-downstream-service-cluster");
        span.set_tag("downstream_cluster", cluster.unwrap_or_else(|| "-".to_owned()));
        span.set_tag("user_agent", header("user-agent").unwrap_or_else(|| "-".to_owned()));
        span.set_tag("http.protocol", protocol(info.protocol));
        let peer = &info.connection.direct_remote_address;
        span.set_tag(
            PEER_ADDRESS,
            peer.ip().map_or_else(|| peer.to_string(), |ip| ip.to_string()),
        );
        if let Some(id) = header("x-client-trace-id") {
            span.set_tag("guid:x-client-trace-id", id);
        }
        if head.is_grpc() {
            span.set_tag("grpc.path", head.path());
            span.set_tag("grpc.authority", head.host());
            for (tag, name) in [("grpc.content_type", "content-type"), ("grpc.timeout", "grpc-timeout")] {
                if let Some(value) = header(name) {
                    span.set_tag(tag, value);
                }
            }
        }
    }
    span.set_tag("request_size", info.progress.bytes_received.get().to_string());
    span.set_tag("response_size", info.progress.bytes_sent.get().to_string());
    common(span, info);
    if let Some(response) = response {
        of_grpc_response(span, &response.headers);
    }
    if let Some(trailers) = &info.response_trailers {
        of_grpc_response(span, trailers);
    }
}

/// The tags of an attempt's span; `info` is the upstream's side of it.
pub fn of_attempt(span: &Span, info: &StreamInfo) {
    span.set_tag("http.protocol", protocol(info.protocol));
    if let Some(host) = &info.upstream.host {
        let address = host.address.to_string();
        span.set_tag(UPSTREAM_ADDRESS, address.clone());
        span.set_tag(PEER_ADDRESS, address);
    }
    common(span, info);
}

/// What headers or trailers say of a gRPC call.
pub fn of_grpc_response(span: &Span, headers: &HeaderMap) {
    let Some(status) = headers.get("grpc-status") else {
        return;
    };
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    span.set_tag(GRPC_STATUS, text(status));
    if let Some(message) = headers.get("grpc-message") {
        span.set_tag("grpc.message", text(message));
    }
    // The codes that are the callee's fault.
    if matches!(status.as_bytes(), b"2" | b"4" | b"8" | b"12" | b"13" | b"14" | b"15") {
        span.set_tag(ERROR, "true");
    }
}

fn common(span: &Span, info: &StreamInfo) {
    span.set_tag("component", "proxy");
    if let Some(cluster) = &info.upstream.cluster {
        let observed = info.upstream.cluster_observability_name.as_ref();
        span.set_tag(UPSTREAM_CLUSTER, cluster.to_string());
        span.set_tag("upstream_cluster.name", observed.unwrap_or(cluster).to_string());
    }
    let code = info.response_code.as_ref().map_or(0, StatusCode::as_u16);
    span.set_tag(HTTP_STATUS, code.to_string());
    span.set_tag("response_flags", info.flags.to_string());
    if code == 0 || code >= 500 {
        span.set_tag(ERROR, "true");
    }
}

/// The events of `verbose`; `progress` is that of the stream.
pub fn events(span: &Span, info: &StreamInfo, progress: &Progress, of_upstream: bool) {
    let at = |moment: Instant| -> SystemTime { info.start_time + moment.saturating_duration_since(info.start) };
    let downstream = |moment: Option<Instant>| moment.filter(|_| !of_upstream);
    let moments = [
        (
            downstream(progress.last_downstream_rx.get()),
            "last_downstream_rx_byte_received",
        ),
        (progress.first_upstream_tx.get(), "first_upstream_tx_byte_sent"),
        (
            progress.last_upstream_tx.get().or(progress.first_upstream_tx.get()),
            "last_upstream_tx_byte_sent",
        ),
        (progress.first_upstream_rx.get(), "first_upstream_rx_byte_received"),
        (progress.last_upstream_rx.get(), "last_upstream_rx_byte_received"),
        (
            downstream(progress.first_downstream_tx.get()),
            "first_downstream_tx_byte_sent",
        ),
        (
            downstream(progress.last_downstream_tx.get()),
            "last_downstream_tx_byte_sent",
        ),
    ];
    for (moment, name) in moments {
        if let Some(moment) = moment {
            span.event(at(moment), name);
        }
    }
}

/// The address as the client asked for it, with a path of at most `longest` bytes.
fn url(head: &RequestHead, longest: usize) -> String {
    if head.path.is_none() {
        return String::new();
    }
    let text = |v: Option<&[u8]>| v.map(|v| String::from_utf8_lossy(v).into_owned());
    let path = text(head.get("x-envoy-original-path")).unwrap_or_else(|| head.path().to_owned());
    let scheme = text(head.get("x-forwarded-proto")).unwrap_or_default();
    let end = (0..=longest.min(path.len())).rev().find(|i| path.is_char_boundary(*i));
    format!(
        "{scheme}://{}{}",
        head.host(),
        path.get(..end.unwrap_or(0)).unwrap_or_default()
    )
}

/// As logs print it.
pub(super) fn protocol(version: Option<Version>) -> &'static str {
    match version {
        Some(Version::HTTP_10) => "HTTP/1.0",
        Some(Version::HTTP_11) => "HTTP/1.1",
        Some(Version::HTTP_2) => "HTTP/2",
        Some(Version::HTTP_3) => "HTTP/3",
        _ => "-",
    }
}
