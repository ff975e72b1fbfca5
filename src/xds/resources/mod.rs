//! One handler for each resource type.

pub mod rds;
