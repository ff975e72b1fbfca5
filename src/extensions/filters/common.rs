//! What filters of several kinds share.

pub mod generic_secret;
pub mod rbac;
pub mod set_filter_state;
