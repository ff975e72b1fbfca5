//! What filters of several kinds share.

pub mod authorization;
pub mod generic_secret;
pub mod istio_stats;
pub mod mutation_rules;
pub mod paced;
pub mod rate_limit_service;
pub mod rbac;
pub mod set_filter_state;
