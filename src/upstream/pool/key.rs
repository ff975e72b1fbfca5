//! What tells the pools of one host apart: requests that differ in any of it never share a connection.

use std::{rc::Rc, sync::Arc};

use super::TransportOptions;
use crate::{
    http::stream_info::SharedObjects,
    net::OriginalSource,
    upstream::{ResourcePriority, config::HttpProtocol},
};

/// A pool's identity among those of its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolKey {
    /// Which circuit breakers it counts against.
    pub priority: ResourcePriority,
    /// What its connections speak.
    pub protocol: HttpProtocol,
    /// What its transport sockets are asked for.
    pub transport: Option<Arc<TransportOptions>>,
    /// The downstream connection, with `connection_pool_per_downstream_connection`.
    pub downstream: Option<u64>,
    /// Where its connections come from, if not from the proxy.
    pub source: Option<OriginalSource>,
    /// Filter state that goes along: connections are not shared by those whose hashable objects differ.
    pub shared: Option<Rc<SharedObjects>>,
}

#[cfg(test)]
mod tests;
