//! Access loggers that are more than a line in a file.

pub mod grpc;
