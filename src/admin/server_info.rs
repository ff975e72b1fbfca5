//! `/server_info` and `/memory`.

use serde_json::{Map, Value, json};
use xds_protos::{
    print::{self, PrintOptions},
    prost::Message,
    prost_reflect::DynamicMessage,
};

use super::{AdminRequest, Reply, reply::envoy_json};
use crate::server::{ServerContext, State};

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
    let initializing = matches!(server.state(), State::PreInitializing | State::Initializing);
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
    Reply::json(envoy_json(&json!({
        "version": version(),
        "state": server.state().name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": format!("{}s", server.uptime_of_all().as_secs()),
        "hot_restart_version": server.hot_restart.version(),
        "command_line_options": options(server),
        "node": node,
        "hot_restart_initializing": server.hot_restart.options().is_some() && initializing,
    })))
}

/// The command line as Envoy's `CommandLineOptions`; options without an effect here are shown at their defaults.
fn options(server: &ServerContext) -> Map<String, Value> {
    let cli = &server.cli;
    let path = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let none: [&str; 0] = [];
    // The one chosen, where it is dynamic.
    let base_id = server.hot_restart.options().map_or(cli.base_id, |o| o.base_id);
    let options = [
        ("base_id", json!(base_id.to_string())),
        ("use_dynamic_base_id", json!(cli.use_dynamic_base_id)),
        (
            "skip_hot_restart_on_no_parent",
            json!(cli.skip_hot_restart_on_no_parent),
        ),
        (
            "skip_hot_restart_parent_stats",
            json!(cli.skip_hot_restart_parent_stats),
        ),
        ("base_id_path", json!(path(&cli.base_id_path))),
        ("concurrency", json!(server.concurrency)),
        ("config_path", json!(path(&cli.config_path))),
        ("config_yaml", json!(cli.config_yaml.clone().unwrap_or_default())),
        ("allow_unknown_static_fields", json!(cli.allow_unknown_static_fields)),
        (
            "reject_unknown_dynamic_fields",
            json!(cli.reject_unknown_dynamic_fields),
        ),
        (
            "ignore_unknown_dynamic_fields",
            json!(cli.ignore_unknown_dynamic_fields),
        ),
        ("skip_deprecated_logs", json!(cli.skip_deprecated_logs)),
        ("admin_address_path", json!(path(&cli.admin_address_path))),
        (
            "local_address_ip_version",
            json!(format!("{:?}", cli.local_address_ip_version).to_lowercase()),
        ),
        ("log_level", json!(cli.log_level)),
        ("component_log_level", json!(cli.component_log_level)),
        // What Envoy says when nobody asked for another: the process log here has a shape of its own.
        ("log_format", json!("[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v")),
        ("log_format_escaped", json!(false)),
        ("log_stacktrace_single_entry", json!(false)),
        ("log_path", json!(path(&cli.log_path))),
        ("enable_fine_grain_logging", json!(false)),
        (
            "service_cluster",
            json!(cli.service_cluster.clone().unwrap_or_default()),
        ),
        ("service_node", json!(cli.service_node.clone().unwrap_or_default())),
        ("service_zone", json!(cli.service_zone.clone().unwrap_or_default())),
        ("file_flush_interval", json!(milliseconds(cli.file_flush_interval_msec))),
        ("file_flush_min_size", json!(0)),
        ("drain_time", json!(format!("{}s", cli.drain_time_s))),
        ("drain_strategy", json!(format!("{:?}", cli.drain_strategy))),
        (
            "parent_shutdown_time",
            json!(format!("{}s", cli.parent_shutdown_time_s)),
        ),
        ("mode", json!(format!("{:?}", cli.mode))),
        ("disable_hot_restart", json!(cli.disable_hot_restart)),
        ("restart_epoch", json!(cli.restart_epoch)),
        ("enable_mutex_tracing", json!(false)),
        ("cpuset_threads", json!(false)),
        ("disabled_extensions", json!(none)),
        ("socket_path", json!(cli.socket_path)),
        ("socket_mode", json!(cli.socket_mode)),
        ("enable_core_dump", json!(false)),
        ("stats_tag", json!(none)),
    ];
    options
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// A duration as protobuf's JSON has it.
fn milliseconds(count: u64) -> String {
    match count % 1000 {
        0 => format!("{}s", count / 1000),
        rest => format!("{}.{rest:03}s", count / 1000),
    }
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
