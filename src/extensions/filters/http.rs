//! HTTP filters, one folder each.

pub mod api_key_auth;
pub mod bandwidth_limit;
pub mod basic_auth;
pub mod buffer;
pub mod compressor;
pub mod cors;
pub mod credential_injector;
pub mod csrf;
pub mod decompressor;
pub mod ext_proc;
pub mod fault;
mod grpc;
pub mod grpc_stats;
pub mod grpc_web;
pub mod header_mutation;
pub mod header_to_metadata;
pub mod health_check;
pub mod json_to_metadata;
pub mod jwt_authn;
pub mod local_ratelimit;
pub mod lua;
pub mod ratelimit;
pub mod rbac;
pub mod set_filter_state;
pub mod set_metadata;
pub mod stateful_session;
mod view;
