//! HTTP filters, one folder each.

pub mod health_check;
pub mod local_ratelimit;
pub mod ratelimit;
pub mod rbac;
