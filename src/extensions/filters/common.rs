//! What filters of several kinds share.

pub mod rbac;
pub mod set_filter_state;
