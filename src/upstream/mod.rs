//! Everything between the router's choice of a cluster and the bytes on an upstream connection.

mod host;

pub use host::Host;
