//! What filters of several kinds share.

pub mod rbac;
