//! The session filters, one file each.

pub mod dynamic_forward_proxy;
pub mod http_capsule;
