//! Statistics of the HTTP/1 codec towards clients, with Envoy's names.

crate::stats_block! {
    /// `http1.*`, of all listeners together; listed once there is an HTTP/1 connection.
    pub struct Http1CodecStats {
        counter dropped_headers_with_underscores => "http1.dropped_headers_with_underscores", "Headers dropped";
        counter metadata_not_supported_error => "http1.metadata_not_supported_error", "Metadata that HTTP/1 cannot carry";
        counter requests_rejected_with_underscores_in_headers => "http1.requests_rejected_with_underscores_in_headers", "Requests rejected";
        counter response_flood => "http1.response_flood", "Connections closed because of responses in the queue";
    }
}
