//! Access loggers that are more than a line in a file.

mod gather;
pub mod grpc;
pub mod open_telemetry;
