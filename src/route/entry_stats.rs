//! Statistics of a virtual cluster, and of a route with a `stat_prefix`.

use std::sync::Arc;

use crate::{
    config::BuildCx,
    stats::{CodeStats, Stats},
    stats_block,
};

stats_block! {
    /// `vhost.<name>.vcluster.<name>.*` and `vhost.<name>.route.<stat_prefix>.*`, beside the response codes.
    pub struct RequestStats {
        counter upstream_rq_retry, "Retries";
        counter upstream_rq_retry_limit_exceeded, "Requests not retried because of the number of retries";
        counter upstream_rq_retry_overflow, "Requests not retried because of the breaker or budget";
        counter upstream_rq_retry_success, "Retries that succeeded";
        counter upstream_rq_timeout, "Requests that timed out";
        counter upstream_rq_total, "Attempts that had a connection";
        histogram(ms, lazy) upstream_rq_time, "Time of a request";
    }
}

/// What one entry of a virtual host counts.
#[derive(Clone)]
pub struct EntryStats {
    /// Its name: the virtual cluster's, or the route's `stat_prefix`.
    pub name: Arc<str>,
    /// Counters and the time.
    pub stats: Stats<RequestStats>,
    /// `upstream_rq_completed`, `upstream_rq_2xx`, `upstream_rq_200`, ...
    pub codes: CodeStats,
}

impl EntryStats {
    /// Of the entry `name` of a kind (`vcluster`, `route`) of a virtual host.
    pub(super) fn new(virtual_host: &str, kind: &str, name: &str, cx: &BuildCx<'_>) -> Self {
        let scope = cx.server.stats.scope(&format!("vhost.{virtual_host}.{kind}.{name}"));
        Self {
            name: name.into(),
            stats: scope.block(),
            codes: scope.codes(""),
        }
    }
}

impl std::fmt::Debug for EntryStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntryStats({})", self.name)
    }
}
