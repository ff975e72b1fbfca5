//! What a watcher implements, and what it is given.

use std::{sync::Arc, time::Duration};

use xds_protos::google::protobuf::Any;

use crate::{config::ConfigError, server::ServerContext};

/// One resource of a response, out of its `envoy.service.discovery.v3.Resource` wrapper if it came in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its name; empty where the type has none (`runtime` layers carry one, inline files may not).
    pub name: String,
    /// The resource's own version (delta, wrapped) or the response's `version_info` (SotW).
    pub version: String,
    /// The resource as it came; its type URL is the one watched.
    pub any: Any,
    /// How long it lives without a heartbeat; none for ever.
    pub ttl: Option<Duration>,
}

/// What one response means for one watch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// `version_info` (SotW, REST, file) or `system_version_info` (delta).
    pub version: String,
    /// Added or changed resources.
    pub added: Vec<Resource>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Whether `added` is the state of the world: for a wildcard watch what is not in it is gone.
    pub full: bool,
}

/// A resource that was not taken. It goes into the NACK; the others of the same response stay applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The resource's name.
    pub name: String,
    /// Why, in Envoy's words where Envoy has some.
    pub reason: String,
}

impl Rejected {
    /// A rejection of `name` for the error a conversion returned.
    pub fn new(name: impl Into<String>, error: &ConfigError) -> Self {
        Self {
            name: name.into(),
            reason: error.to_string(),
        }
    }
}

/// Why there is no update. What was applied before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// No first answer within `initial_fetch_timeout`: the watcher goes on without.
    #[error("initial fetch timed out")]
    Timeout,
    /// The response could not be read at all and was NACKed.
    #[error("update rejected: {0}")]
    Rejected(String),
    /// The stream, request or file failed; it is tried again.
    #[error("connection failure: {0}")]
    Connection(String),
}

/// Applies updates of one watch; always called on the control thread.
pub trait ResourceHandler {
    /// The prefix of this watch's statistics with its trailing dot, for example `cluster_manager.cds.`:
    /// `update_attempt`, `update_success`, `update_rejected`, `version`, ... stand below it.
    fn stat_prefix(&self) -> String;

    /// Applies what came, and names what it did not take. One bad resource never stops the others.
    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected>;

    /// There is no update. After [`FetchFailure::Timeout`] and [`FetchFailure::Rejected`] nobody should wait
    /// for this watch any longer.
    fn failed(&mut self, reason: FetchFailure);
}
