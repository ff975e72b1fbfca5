//! Statistics of a cluster (`cluster.<name>.`), with Envoy's names.

crate::stats_block! {
    /// Traffic and configuration of one cluster.
    pub struct ClusterStats {
        counter upstream_cx_total, "Connections opened or tried";
        gauge upstream_cx_active, "Connections open now";
        counter upstream_cx_http1_total, "HTTP/1.1 connections";
        counter upstream_cx_http2_total, "HTTP/2 connections";
        counter upstream_cx_http3_total, "HTTP/3 connections";
        counter upstream_cx_connect_fail, "Connections that failed";
        counter upstream_cx_connect_timeout, "Connections that took longer than connect_timeout";
        counter upstream_cx_connect_attempts_exceeded, "Consecutive connection failures past the limit (TCP proxy)";
        counter upstream_cx_connect_with_0_rtt, "Connections with early data";
        counter upstream_cx_overflow, "Times the connection breaker was open";
        counter upstream_cx_pool_overflow, "Times the connection pool breaker was open";
        counter upstream_cx_preconnect_skipped, "Connections not opened ahead";
        histogram(ms) upstream_cx_connect_ms, "Time to connect";
        histogram(ms) upstream_cx_length_ms, "Length of a connection";
        histogram(none) upstream_rq_per_cx, "Requests over a connection";
        counter upstream_cx_destroy, "Connections closed";
        counter upstream_cx_destroy_local, "Connections closed by this side";
        counter upstream_cx_destroy_remote, "Connections closed by the other side";
        counter upstream_cx_destroy_with_active_rq, "Connections closed with requests in flight";
        counter upstream_cx_destroy_local_with_active_rq, "Connections closed by this side with requests in flight";
        counter upstream_cx_destroy_remote_with_active_rq, "Connections closed by the other side with requests in flight";
        counter upstream_cx_close_notify, "Connections closed by HTTP/1.1 connection close or HTTP/2 GOAWAY";
        counter upstream_cx_idle_timeout, "Connections closed because idle";
        counter upstream_cx_max_duration_reached, "Connections closed because of their age";
        counter upstream_cx_max_requests, "Connections closed after their number of requests";
        counter upstream_cx_none_healthy, "Times no host could be picked";
        counter upstream_cx_protocol_error, "Connections closed because of a protocol error";
        gauge upstream_cx_rx_bytes_buffered, "Received bytes in buffers";
        counter upstream_cx_rx_bytes_total, "Received bytes";
        gauge upstream_cx_tx_bytes_buffered, "Bytes in buffers to be sent";
        counter upstream_cx_tx_bytes_total, "Sent bytes";
        counter upstream_http3_broken, "Times HTTP/3 was marked broken";
        counter upstream_flow_control_backed_up_total, "Times a connection backed up";
        counter upstream_flow_control_drained_total, "Times a backed up connection drained";
        counter upstream_flow_control_paused_reading_total, "Times reading was paused";
        counter upstream_flow_control_resumed_reading_total, "Times reading was resumed";
        counter upstream_internal_redirect_failed_total, "Internal redirects that failed";
        counter upstream_internal_redirect_succeeded_total, "Internal redirects that succeeded";
        gauge upstream_queue_overloaded, "Times the pending queue refused a request by policy";
        counter upstream_rq_total, "Requests";
        gauge upstream_rq_active, "Requests in flight";
        counter upstream_rq_active_overflow, "Times the request breaker was open";
        counter upstream_rq_0rtt, "Requests sent as early data";
        counter upstream_rq_pending_total, "Requests that waited for a connection";
        gauge upstream_rq_pending_active, "Requests waiting for a connection";
        counter upstream_rq_pending_overflow, "Requests refused because a breaker was open";
        counter upstream_rq_pending_failure_eject, "Requests failed because the connection they waited for did";
        counter upstream_rq_cancelled, "Requests cancelled before they had a connection";
        counter upstream_rq_maintenance_mode, "Requests answered 503 because of maintenance mode";
        counter upstream_rq_max_duration_reached, "Requests closed because of their length";
        counter upstream_rq_timeout, "Requests that timed out";
        counter upstream_rq_per_try_timeout, "Attempts that timed out";
        counter upstream_rq_per_try_idle_timeout, "Attempts that were idle for too long";
        counter upstream_rq_rx_reset, "Requests reset by the other side";
        counter upstream_rq_rx_reset_no_error, "Requests reset by the other side without an error";
        counter upstream_rq_tx_reset, "Requests reset by this side";
        counter upstream_rq_retry, "Retries";
        counter upstream_rq_retry_backoff_exponential, "Retries after exponential back-off";
        counter upstream_rq_retry_backoff_ratelimited, "Retries after a back-off the upstream asked for";
        counter upstream_rq_retry_limit_exceeded, "Requests not retried because of the number of retries";
        counter upstream_rq_retry_success, "Retries that succeeded";
        counter upstream_rq_retry_overflow, "Requests not retried because of the breaker or budget";
        counter retry_or_shadow_abandoned, "Requests whose body was too large to be kept for retries and shadows";
        histogram(ms, lazy) upstream_rq_time, "Time of a request";
        histogram(ms, lazy) external_upstream_rq_time => "external.upstream_rq_time", "Time of a request from outside";
        histogram(ms, lazy) internal_upstream_rq_time => "internal.upstream_rq_time", "Time of a request from inside";
        counter bind_errors, "Failures to bind the local address";
        counter original_dst_host_invalid, "Original destinations that were no address";
        counter lb_healthy_panic, "Picks in panic mode";
        counter lb_local_cluster_not_ok, "Zone routing: local cluster in panic";
        counter lb_recalculate_zone_structures, "Zone routing: recalculations";
        gauge lb_subsets_active, "Subsets";
        counter lb_subsets_created, "Subsets created";
        counter lb_subsets_fallback, "Picks by the fallback policy";
        counter lb_subsets_fallback_panic, "Picks by the panic fallback";
        counter lb_subsets_removed, "Subsets removed";
        counter lb_subsets_selected, "Picks in a subset";
        counter lb_zone_cluster_too_small, "Zone routing: cluster too small";
        counter lb_zone_no_capacity_left, "Zone routing: no capacity left";
        counter lb_zone_routing_all_directly, "Zone routing: all to the own zone";
        counter lb_zone_routing_cross_zone, "Zone routing: to another zone";
        counter lb_zone_routing_sampled, "Zone routing: sampled";
        gauge(never_import) default_cx_open => "circuit_breakers.default.cx_open", "Connection breaker";
        gauge(never_import) default_cx_pool_open => "circuit_breakers.default.cx_pool_open", "Pool breaker";
        gauge(never_import) default_rq_open => "circuit_breakers.default.rq_open", "Request breaker";
        gauge(never_import) default_rq_pending_open => "circuit_breakers.default.rq_pending_open", "Pending breaker";
        gauge(never_import) default_rq_retry_open => "circuit_breakers.default.rq_retry_open", "Retry breaker";
        gauge(never_import) high_cx_open => "circuit_breakers.high.cx_open", "Connection breaker";
        gauge(never_import) high_cx_pool_open => "circuit_breakers.high.cx_pool_open", "Pool breaker";
        gauge(never_import) high_rq_open => "circuit_breakers.high.rq_open", "Request breaker";
        gauge(never_import) high_rq_pending_open => "circuit_breakers.high.rq_pending_open", "Pending breaker";
        gauge(never_import) high_rq_retry_open => "circuit_breakers.high.rq_retry_open", "Retry breaker";
    }
}

crate::stats_block! {
    /// What control counts of a cluster's hosts; apart, because an idle cluster has no traffic to count.
    pub struct MembershipStats {
        counter update_empty, "Updates without hosts";
        counter update_no_rebuild, "Updates that changed nothing";
        counter total_match_count => "default.total_match_count", "Uses of the default transport socket";
        gauge(never_import) max_host_weight, "Largest weight of a host";
        gauge(never_import) membership_total, "Hosts";
        gauge(never_import) membership_healthy, "Healthy hosts";
        gauge(never_import) membership_degraded, "Degraded hosts";
        gauge(never_import) membership_excluded, "Hosts excluded from balancing";
        counter membership_change, "Changes of the hosts";
        counter assignment_stale, "Times an assignment became stale";
        counter assignment_timeout_received, "Assignments with a staleness timeout";
        counter assignment_use_cached, "Cached assignments used";
        gauge(never_import) warming_state, "1 while the cluster warms";
    }
}

crate::stats_block! {
    /// Discovery of clusters without xDS; where there is a subscription, it counts these itself.
    pub struct UpdateStats {
        counter update_attempt, "Attempts to refresh the hosts";
        counter update_failure, "Failed updates";
        counter update_success, "Successful updates";
        gauge(never_import) version, "Hash of the last version";
    }
}

crate::stats_block! {
    /// `cluster_manager.`
    pub struct ClusterManagerStats {
        gauge(never_import) active_clusters, "Clusters that serve";
        counter cluster_added, "Clusters added";
        counter cluster_modified, "Clusters changed";
        counter cluster_removed, "Clusters removed";
        counter cluster_updated, "Endpoint updates";
        counter cluster_updated_via_merge, "Endpoint updates that were merged";
        counter update_merge_cancelled, "Merges cancelled by an update that cannot wait";
        counter update_out_of_merge_window, "Endpoint updates outside of a merge window";
        gauge(never_import) warming_clusters, "Clusters that warm";
    }
}

crate::stats_block! {
    /// The HTTP/1 codec's, listed once there is an HTTP/1 connection: of a cluster, or of the listeners together.
    pub struct Http1CodecStats {
        counter dropped_headers_with_underscores => "http1.dropped_headers_with_underscores", "Headers dropped";
        counter metadata_not_supported_error => "http1.metadata_not_supported_error", "Metadata over HTTP/1";
        counter requests_rejected_with_underscores_in_headers => "http1.requests_rejected_with_underscores_in_headers", "Requests rejected";
        counter response_flood => "http1.response_flood", "Connections closed because of queued responses";
    }
}
