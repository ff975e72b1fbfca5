//! Statistics of listeners (`listener.<address>.*`, `listener_manager.*`).

use crate::stats_block;

stats_block! {
    /// `listener.<address or stat_prefix>.*`
    pub struct ListenerStats {
        counter downstream_cx_total, "Connections accepted";
        counter downstream_cx_destroy, "Connections closed";
        gauge downstream_cx_active, "Connections open now";
        histogram(ms) downstream_cx_length_ms, "How long connections were open";
        counter downstream_cx_overflow, "Connections refused because the listener had too many";
        counter downstream_cx_overload_reject, "Connections refused by the overload manager";
        counter downstream_cx_transport_socket_connect_timeout, "Connections closed because their TLS handshake took too long";
        gauge downstream_pre_cx_active, "Connections in listener filters";
        counter downstream_pre_cx_timeout, "Connections whose listener filters took too long";
        counter downstream_global_cx_overflow, "Connections refused because the process had too many";
        counter no_filter_chain_match, "Connections that no filter chain matched";
        counter downstream_listener_filter_error, "Errors in listener filters";
        counter downstream_listener_filter_remote_close, "Clients that went while listener filters read";
        histogram(none) connections_accepted_per_socket_event, "Connections taken from the queue at once";
    }
}

stats_block! {
    /// What listeners of the configuration have beside those, and the admin listener has not.
    pub struct ListenerExtensionStats {
        counter extension_config_missing, "Connections closed because a listener filter's configuration was missing";
        counter network_extension_config_missing, "Connections closed because a network filter's configuration was missing";
    }
}

stats_block! {
    /// `listener.<address or stat_prefix>.worker_<id>.*`: how connections spread.
    pub struct HandlerStats {
        counter downstream_cx_total, "Connections accepted by this worker";
        gauge downstream_cx_active, "Connections open on this worker";
    }
}

stats_block! {
    /// `listener_manager.*`
    pub struct ListenerManagerStats {
        counter listener_added, "Listeners added";
        counter listener_modified, "Listeners changed";
        counter listener_removed, "Listeners removed";
        counter listener_stopped, "Listeners stopped";
        counter listener_create_success, "Listeners created on workers";
        counter listener_create_failure, "Listeners that could not be created";
        counter listener_in_place_updated, "Listeners whose filter chains alone changed";
        gauge(never_import) total_listeners_warming, "Listeners waiting for what they need";
        gauge(never_import) total_listeners_active, "Listeners that serve";
        gauge(never_import) total_listeners_draining, "Listeners that end";
        gauge(never_import) total_filter_chains_draining, "Filter chains that end";
        gauge(never_import) workers_pinned, "1 if workers are pinned to processors";
        gauge(never_import) workers_started, "1 once the workers accept connections";
    }
}
