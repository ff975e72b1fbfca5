//! HTTP filters, one folder each.

pub mod buffer;
pub mod cors;
pub mod fault;
pub mod header_mutation;
pub mod health_check;
pub mod local_ratelimit;
pub mod ratelimit;
pub mod rbac;
