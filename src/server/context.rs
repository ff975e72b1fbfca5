//! What every part of the control side shares.

use std::sync::Arc;

use xds_protos::envoy::config::core::v3::Node;

use super::Mailboxes;
use crate::{extensions::Registry, xds};

/// The server: one per process, shared by control, admin and workers. Read-only but for its own slots.
pub struct ServerContext {
    /// This proxy's node, as sent to control planes; filled from bootstrap and command line.
    pub node: Arc<Node>,
    /// All extensions.
    pub registry: Registry,
    /// Ways to the workers and to the control thread.
    pub mailboxes: Mailboxes,
    /// Number of workers (`--concurrency`).
    pub concurrency: usize,
    /// The xDS client.
    pub xds: xds::Handle,
}
