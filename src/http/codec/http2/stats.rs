//! Statistics of the HTTP/2 codec, with Envoy's names.

crate::stats_block! {
    /// The HTTP/2 codec's, listed once there is an HTTP/2 connection: of a cluster, or of the listeners together.
    pub struct Http2CodecStats {
        counter cookies_total_bytes_too_large => "http2.cookies_total_bytes_too_large", "Requests refused because of their cookies";
        counter dropped_headers_with_underscores => "http2.dropped_headers_with_underscores", "Headers dropped";
        counter goaway_sent => "http2.goaway_sent", "GOAWAY frames sent";
        counter header_list_size_too_large => "http2.header_list_size_too_large", "Header lists past their limit";
        counter header_overflow => "http2.header_overflow", "Streams reset because of large headers";
        counter headers_cb_no_stream => "http2.headers_cb_no_stream", "Headers without a stream";
        counter inbound_empty_frames_flood => "http2.inbound_empty_frames_flood", "Connections closed because of empty frames";
        counter inbound_priority_frames_flood => "http2.inbound_priority_frames_flood", "Connections closed because of PRIORITY frames";
        counter inbound_window_update_frames_flood => "http2.inbound_window_update_frames_flood", "Connections closed because of WINDOW_UPDATE frames";
        counter keepalive_timeout => "http2.keepalive_timeout", "Connections closed because a PING was not answered";
        counter metadata_empty_frames => "http2.metadata_empty_frames", "Empty METADATA frames";
        counter nghttp2_downstream_connections => "http2.nghttp2_downstream_connections", "Connections served by a codec that is not built in";
        counter nghttp2_upstream_connections => "http2.nghttp2_upstream_connections", "Connections opened by a codec that is not built in";
        counter oghttp2_downstream_connections => "http2.oghttp2_downstream_connections", "Connections served by a codec that is not built in";
        counter oghttp2_upstream_connections => "http2.oghttp2_upstream_connections", "Connections opened by a codec that is not built in";
        counter outbound_control_flood => "http2.outbound_control_flood", "Connections closed because of control frames in the queue";
        counter outbound_flood => "http2.outbound_flood", "Connections closed because of frames in the queue";
        counter requests_rejected_with_underscores_in_headers => "http2.requests_rejected_with_underscores_in_headers", "Requests rejected";
        counter rx_messaging_error => "http2.rx_messaging_error", "Messages that broke the protocol";
        counter rx_reset => "http2.rx_reset", "Streams reset by the peer";
        counter stream_refused_errors => "http2.stream_refused_errors", "Streams refused by the peer";
        counter trailers => "http2.trailers", "Trailers received";
        counter tx_flush_timeout => "http2.tx_flush_timeout", "Streams reset because nobody read them";
        counter tx_reset => "http2.tx_reset", "Streams reset by us";
        gauge deferred_stream_close => "http2.deferred_stream_close", "Streams that close when they were read";
        gauge outbound_control_frames_active => "http2.outbound_control_frames_active", "Control frames in the queue";
        gauge outbound_frames_active => "http2.outbound_frames_active", "Frames in the queue";
        gauge pending_send_bytes => "http2.pending_send_bytes", "Body bytes that wait for a window";
        gauge streams_active => "http2.streams_active", "Open streams";
        histogram(none) cookie_count => "http2.cookie_count", "Cookies of a request";
        histogram(bytes) cookie_size => "http2.cookie_size", "Size of the cookies of a request";
        histogram(none) header_count => "http2.header_count", "Headers of a request";
        histogram(bytes) header_list_size => "http2.header_list_size", "Size of the headers of a request";
    }
}
