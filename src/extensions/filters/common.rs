//! What filters of several kinds share.

pub mod generic_secret;
pub mod mutation_rules;
pub mod paced;
pub mod rbac;
pub mod set_filter_state;
