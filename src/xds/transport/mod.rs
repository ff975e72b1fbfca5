//! How requests and responses travel.

pub mod file;
pub(super) mod grpc;
