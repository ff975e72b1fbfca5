//! How requests and responses travel.

mod dial;
pub mod file;
pub(super) mod grpc;
pub(super) mod rest;
