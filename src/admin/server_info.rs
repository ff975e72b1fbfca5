//! `/server_info` and `/memory`.

use serde_json::json;
use xds_protos::{
    print::{self, PrintOptions},
    prost::Message,
    prost_reflect::DynamicMessage,
};

use super::{AdminRequest, Reply, reply::envoy_json};

/// The version string, in the shape of Envoy's: revision/version/state/type/TLS library.
pub fn version() -> String {
    format!(
        "{}/{}/Clean/{}/rustls",
        "nuncio",
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" }
    )
}

/// `/server_info`
pub(super) fn server_info(request: &AdminRequest) -> Reply {
    let server = &request.server;
    let cli = &server.cli;
    let uptime = format!("{}s", server.started.1.elapsed().as_secs());
    let node = xds_protos::message("envoy.config.core.v3.Node")
        .and_then(|d| DynamicMessage::decode(d, server.node.encode_to_vec().as_slice()).ok())
        .and_then(|n| {
            serde_json::from_str(&print::json(
                &n,
                PrintOptions {
                    always_print_defaults: true,
                    ..PrintOptions::default()
                },
            ))
            .ok()
        })
        .unwrap_or(serde_json::Value::Null);
    let path = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    Reply::json(envoy_json(&json!({
        "version": version(),
        "state": server.state().name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "base_id": "0",
            "concurrency": server.concurrency,
            "config_path": path(&cli.config_path),
            "config_yaml": cli.config_yaml.clone().unwrap_or_default(),
            "allow_unknown_static_fields": cli.allow_unknown_static_fields,
            "admin_address_path": path(&cli.admin_address_path),
            "local_address_ip_version": format!("{:?}", cli.local_address_ip_version).to_lowercase(),
            "log_level": cli.log_level,
            "component_log_level": cli.component_log_level,
            "log_path": path(&cli.log_path),
            "service_cluster": cli.service_cluster.clone().unwrap_or_default(),
            "service_node": cli.service_node.clone().unwrap_or_default(),
            "service_zone": cli.service_zone.clone().unwrap_or_default(),
            "file_flush_interval": format!("{}s", cli.file_flush_interval_msec as f64 / 1000.0),
            "drain_time": format!("{}s", cli.drain_time_s),
            "parent_shutdown_time": format!("{}s", cli.parent_shutdown_time_s),
            "mode": format!("{:?}", cli.mode),
            "reject_unknown_dynamic_fields": cli.reject_unknown_dynamic_fields,
            "ignore_unknown_dynamic_fields": cli.ignore_unknown_dynamic_fields,
            "drain_strategy": format!("{:?}", cli.drain_strategy),
            "skip_deprecated_logs": cli.skip_deprecated_logs,
        },
        "node": node,
    })))
}

/// `/memory`, from the allocator where it tells, else from the kernel.
pub(super) fn memory(_: &AdminRequest) -> Reply {
    let memory = crate::server::memory();
    Reply::json(envoy_json(&json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.heap.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": memory.heap.saturating_sub(memory.allocated).to_string(),
        "total_thread_cache": "0",
        "total_physical_bytes": memory.physical.to_string(),
    })))
}
