//! One endpoint of a cluster, shared by control and workers.

use std::sync::Arc;

use crate::net::Address;

/// One endpoint. Identity is its address: it survives endpoint and health updates, and its connections with it.
#[derive(Debug)]
pub struct Host {
    /// Where to connect.
    pub address: Address,
    /// DNS name it was resolved from, or `Endpoint.hostname`; empty when neither.
    pub hostname: Arc<str>,
}
