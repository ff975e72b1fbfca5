//! The extensions: one folder each, at the paths of Envoy's `source/extensions`.

pub mod access_loggers;
pub mod common;
pub mod compression;
pub mod filters;
pub mod formatter;
pub mod grpc_service;
mod registry;
pub mod resource_monitors;

pub use registry::Registry;

/// Everything that is built in. One line per extension.
pub fn register_all() -> Registry {
    let mut registry = Registry::default();
    registry.http_filter(filters::http::api_key_auth::Factory);
    registry.http_filter(filters::http::bandwidth_limit::Factory);
    registry.http_filter(filters::http::basic_auth::Factory);
    registry.http_filter(filters::http::buffer::Factory);
    registry.http_filter(filters::http::compressor::Factory);
    registry.http_filter(filters::http::cors::Factory);
    registry.http_filter(filters::http::credential_injector::Factory);
    registry.http_filter(filters::http::csrf::Factory);
    registry.http_filter(filters::http::decompressor::Factory);
    registry.http_filter(filters::http::dynamic_forward_proxy::Factory);
    registry.http_filter(filters::http::ext_proc::Factory);
    registry.http_filter(filters::http::ext_authz::Factory);
    registry.http_filter(filters::http::fault::Factory);
    registry.http_filter(filters::http::grpc_stats::Factory);
    registry.http_filter(filters::http::grpc_web::Factory);
    registry.http_filter(filters::http::header_mutation::Factory);
    registry.http_filter(filters::http::header_to_metadata::Factory);
    registry.http_filter(filters::http::health_check::Factory);
    registry.http_filter(filters::http::istio_stats::Factory);
    registry.http_filter(filters::http::json_to_metadata::Factory);
    registry.http_filter(filters::http::jwt_authn::Factory);
    registry.http_filter(filters::http::local_ratelimit::Factory);
    registry.http_filter(filters::http::lua::Factory);
    registry.http_filter(filters::http::on_demand::Factory);
    registry.http_filter(filters::http::original_src::Factory);
    registry.http_filter(filters::http::ratelimit::Factory);
    registry.http_filter(filters::http::rbac::Factory);
    registry.http_filter(filters::http::set_filter_state::Factory);
    registry.http_filter(filters::http::set_metadata::Factory);
    registry.http_filter(filters::http::stateful_session::Factory);
    registry.listener_filter(filters::listener::http_inspector::Factory);
    registry.listener_filter(filters::listener::local_ratelimit::Factory);
    registry.listener_filter(filters::listener::original_dst::Factory);
    registry.listener_filter(filters::listener::original_src::Factory);
    registry.listener_filter(filters::listener::proxy_protocol::Factory);
    registry.listener_filter(filters::listener::set_filter_state::Factory);
    registry.listener_filter(filters::listener::tls_inspector::Factory);
    registry.udp_filter(filters::udp::udp_proxy::Factory);
    registry.udp_session_filter(filters::udp::udp_proxy::session_filters::dynamic_forward_proxy::Factory);
    registry.udp_session_filter(filters::udp::udp_proxy::session_filters::http_capsule::Factory);
    registry.network_filter(crate::http::hcm::Factory);
    registry.network_filter(filters::network::connection_limit::Factory);
    registry.network_filter(filters::network::direct_response::Factory);
    registry.network_filter(filters::network::echo::Factory);
    registry.network_filter(filters::network::ext_authz::Factory);
    registry.network_filter(filters::network::istio_stats::Factory);
    registry.network_filter(filters::network::local_ratelimit::Factory);
    registry.network_filter(filters::network::ratelimit::Factory);
    registry.network_filter(filters::network::rbac::Factory);
    registry.network_filter(filters::network::set_filter_state::Factory);
    registry.network_filter(filters::network::sni_cluster::Factory);
    registry.network_filter(filters::network::sni_dynamic_forward_proxy::Factory);
    registry.network_filter(filters::network::tcp_proxy::Factory);
    registry.formatter(formatter::cel::Factory);
    registry.formatter(formatter::file_content::Factory);
    registry.formatter(formatter::generic_secret::Factory);
    registry.formatter(formatter::metadata::Factory);
    registry.formatter(formatter::req_without_query::Factory);
    registry.access_logger(access_loggers::grpc::HttpFactory);
    registry.access_logger(access_loggers::grpc::TcpFactory);
    registry.access_logger(access_loggers::open_telemetry::Factory);
    registry.resource_monitor(resource_monitors::cgroup_memory::Factory);
    registry.resource_monitor(resource_monitors::cpu_utilization::Factory);
    registry.resource_monitor(resource_monitors::downstream_connections::Factory);
    registry.resource_monitor(resource_monitors::fixed_heap::Factory);
    registry.resource_monitor(resource_monitors::injected_resource::Factory);
    registry
}
