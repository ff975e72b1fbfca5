//! One handler for each resource type.

pub mod cds;
pub mod ecds;
pub mod ecds_http;
pub mod lds;
pub mod odcds;
pub mod rds;
pub mod rtds;
pub mod srds;
mod vhds;
pub mod workloads;
