//! Load balancing: which host a request goes to. Runs on workers, over the snapshots that control publishes.

use crate::http::stream_info::Metadata;

use super::Host;

/// What the choice of a host may depend on. `LbContext::default()` is a plain request.
#[derive(Default)]
pub struct LbContext<'a> {
    /// Hash of the request (`hash_policy`), for ring hash and Maglev; random when none.
    pub hash: Option<u64>,
    /// `metadata_match` of route and weighted cluster under `envoy.lb`, merged: chooses the subset.
    pub metadata_match: Option<&'a Metadata>,
    /// Retry host predicates: hosts to pass over, as long as `attempts` last.
    pub rejects: Option<&'a dyn Fn(&Host) -> bool>,
    /// `host_selection_retry_max_attempts`: how often a rejected pick is repeated.
    pub attempts: u32,
    /// Retry priority (`previous_priorities`): priorities to avoid where another has hosts.
    pub avoid_priorities: &'a [u32],
    /// An address to prefer whatever the policy says (stateful session), and whether nothing else will do.
    pub override_host: Option<(&'a str, bool)>,
}
