//! HTTP filters, one folder each.

pub mod local_ratelimit;
pub mod ratelimit;
