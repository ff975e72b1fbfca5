//! One handler for each resource type.

pub mod cds;
pub mod lds;
pub mod rds;
