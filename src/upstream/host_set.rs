//! The hosts of a cluster at one moment: immutable snapshots that control publishes and workers balance over.

use std::sync::Arc;

use super::Host;

/// The hosts of one priority.
#[derive(Debug, Default)]
pub struct HostSet {
    /// All hosts.
    pub hosts: Vec<Arc<Host>>,
}

/// The hosts of a cluster by priority.
#[derive(Debug, Default)]
pub struct HostSets {
    /// Index is the priority.
    pub priorities: Vec<HostSet>,
}
