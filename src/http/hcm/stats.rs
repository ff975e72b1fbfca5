//! Statistics of connection managers: `http.<stat_prefix>.*`.

use crate::stats_block;

stats_block! {
    /// `http.<stat_prefix>.*`, as Envoy names them.
    pub struct HcmStats {
        counter downstream_cx_total, "Connections";
        counter downstream_cx_ssl_total, "TLS connections";
        counter downstream_cx_http1_total, "HTTP/1 connections";
        counter downstream_cx_http2_total, "HTTP/2 connections";
        counter downstream_cx_http3_total, "HTTP/3 connections";
        gauge downstream_cx_http1_soft_drain, "HTTP/1 connections softly drained at their maximum duration";
        counter downstream_cx_upgrades_total, "Upgraded connections";
        counter downstream_cx_destroy, "Connections closed";
        counter downstream_cx_destroy_remote, "Closed by the peer";
        counter downstream_cx_destroy_local, "Closed by us";
        counter downstream_cx_destroy_active_rq, "Closed with requests open";
        counter downstream_cx_destroy_local_active_rq, "Closed by us with requests open";
        counter downstream_cx_destroy_remote_active_rq, "Closed by the peer with requests open";
        gauge downstream_cx_active, "Open connections";
        gauge downstream_cx_ssl_active, "Open TLS connections";
        gauge downstream_cx_http1_active, "Open HTTP/1 connections";
        gauge downstream_cx_http2_active, "Open HTTP/2 connections";
        gauge downstream_cx_http3_active, "Open HTTP/3 connections";
        gauge downstream_cx_upgrades_active, "Open upgraded connections";
        counter downstream_cx_protocol_error, "Protocol errors";
        histogram(ms) downstream_cx_length_ms, "How long connections were open";
        counter downstream_cx_rx_bytes_total, "Bytes read";
        gauge downstream_cx_rx_bytes_buffered, "Bytes read and not yet processed";
        counter downstream_cx_tx_bytes_total, "Bytes written";
        gauge downstream_cx_tx_bytes_buffered, "Bytes to be written";
        counter downstream_cx_drain_close, "Closed because of draining";
        counter downstream_cx_idle_timeout, "Closed because they were idle";
        counter downstream_cx_max_duration_reached, "Closed because of their age";
        counter downstream_cx_max_requests_reached, "Closed because of max_requests_per_connection";
        counter downstream_cx_overload_disable_keepalive, "Keep-alive disabled under overload";
        counter downstream_cx_delayed_close_timeout, "Delayed closes that timed out";
        counter downstream_flow_control_paused_reading_total, "Reading paused by flow control";
        counter downstream_flow_control_resumed_reading_total, "Reading resumed by flow control";
        counter downstream_rq_total, "Requests";
        counter downstream_rq_http1_total, "HTTP/1 requests";
        counter downstream_rq_http2_total, "HTTP/2 requests";
        counter downstream_rq_http3_total, "HTTP/3 requests";
        gauge downstream_rq_active, "Open requests";
        counter downstream_rq_rejected_via_ip_detection, "Rejected by original IP detection";
        counter downstream_rq_response_before_rq_complete, "Responses before the request was complete";
        counter downstream_rq_rx_reset, "Streams reset by the peer";
        counter downstream_rq_tx_reset, "Streams reset by us";
        counter downstream_rq_too_many_premature_resets, "Connections closed because of premature resets";
        counter downstream_rq_non_relative_path, "Requests with a path that is not relative";
        counter downstream_rq_too_large, "Requests whose body exceeded a buffer";
        counter downstream_rq_1xx, "1xx responses";
        counter downstream_rq_2xx, "2xx responses";
        counter downstream_rq_3xx, "3xx responses";
        counter downstream_rq_4xx, "4xx responses";
        counter downstream_rq_5xx, "5xx responses";
        counter downstream_rq_completed, "Responses";
        counter downstream_rq_ws_on_non_ws_route, "Upgrades refused by their route";
        histogram(ms) downstream_rq_time, "Request time";
        counter downstream_rq_idle_timeout, "Streams that were idle too long";
        counter downstream_rq_max_duration_reached, "Streams past max_stream_duration";
        counter downstream_rq_timeout, "Requests past request_timeout";
        counter downstream_rq_header_timeout, "Request heads past request_headers_timeout";
        counter downstream_rq_overload_close, "Requests refused under overload";
        counter downstream_rq_redirected_with_normalized_path, "Redirects to a normalised path";
        counter downstream_rq_failed_path_normalization, "Requests whose path could not be normalised";
        counter rs_too_large, "Responses that exceeded a buffer";
    }
}

stats_block! {
    /// What the router counts among the connection manager's.
    pub struct RouterStats {
        counter no_route => "no_route", "Requests without a route";
        counter no_cluster => "no_cluster", "Requests whose cluster does not exist";
        counter rq_total, "Requests that reached the router";
        counter rq_direct_response, "Direct responses";
        counter rq_redirect, "Redirects";
        counter rq_reset_after_downstream_response_started, "Streams reset after the response started";
        counter rq_overload_local_reply, "Local replies under overload";
        counter passthrough_internal_redirect_bad_location => "passthrough_internal_redirect_bad_location", "Internal redirects with a bad location";
        counter passthrough_internal_redirect_no_route => "passthrough_internal_redirect_no_route", "Internal redirects without a route";
        counter passthrough_internal_redirect_predicate => "passthrough_internal_redirect_predicate", "Internal redirects refused by a predicate";
        counter passthrough_internal_redirect_too_many_redirects => "passthrough_internal_redirect_too_many_redirects", "Internal redirects past their limit";
        counter passthrough_internal_redirect_unsafe_scheme => "passthrough_internal_redirect_unsafe_scheme", "Internal redirects to another scheme";
    }
}

stats_block! {
    /// Why requests were traced, or not.
    pub struct TracingStats {
        counter tracing_random_sampling => "tracing.random_sampling", "Sampled at random";
        counter tracing_service_forced => "tracing.service_forced", "Sampled because a service forced it";
        counter tracing_client_enabled => "tracing.client_enabled", "Sampled because the client asked";
        counter tracing_not_traceable => "tracing.not_traceable", "Not traceable";
        counter tracing_health_check => "tracing.health_check", "Not traced: health checks";
    }
}

stats_block! {
    /// `listener.<stat_prefix>.http.<stat_prefix>.*`: responses by listener.
    pub struct HcmListenerStats {
        counter downstream_rq_1xx, "1xx responses";
        counter downstream_rq_2xx, "2xx responses";
        counter downstream_rq_3xx, "3xx responses";
        counter downstream_rq_4xx, "4xx responses";
        counter downstream_rq_5xx, "5xx responses";
        counter downstream_rq_completed, "Responses";
    }
}

/// Counts a response in both places.
pub fn count_response(stats: &HcmStats, listener: &HcmListenerStats, status: u16) {
    stats.downstream_rq_completed.inc();
    listener.downstream_rq_completed.inc();
    let (of_manager, of_listener) = match status / 100 {
        1 => (&stats.downstream_rq_1xx, &listener.downstream_rq_1xx),
        2 => (&stats.downstream_rq_2xx, &listener.downstream_rq_2xx),
        3 => (&stats.downstream_rq_3xx, &listener.downstream_rq_3xx),
        4 => (&stats.downstream_rq_4xx, &listener.downstream_rq_4xx),
        _ => (&stats.downstream_rq_5xx, &listener.downstream_rq_5xx),
    };
    of_manager.inc();
    of_listener.inc();
}
