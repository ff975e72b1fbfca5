//! Statistics of subscriptions and of control-plane streams, with Envoy's names.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use twox_hash::XxHash64;

use crate::{
    stats::{Scope, Stats, Store, TextReadout},
    stats_block,
};

stats_block! {
    /// One subscription's (`cluster_manager.cds.`, `http.<prefix>.rds.<name>.`, ...).
    pub struct SubscriptionBlock {
        counter init_fetch_timeout, "First answers that did not come within initial_fetch_timeout";
        counter update_attempt, "Requests, answers and failures";
        counter update_failure, "Streams, requests or files that failed";
        counter update_rejected, "Updates that were rejected, wholly or in part";
        counter update_success, "Updates applied";
        gauge(never_import) update_time, "When the last update was applied, in milliseconds of Unix time";
        gauge(never_import) version, "xxHash64 of the version last applied";
        histogram(ms) update_duration, "How long applying an update took";
    }
}

stats_block! {
    /// One control-plane stream's (`control_plane.`).
    pub struct ControlPlaneBlock {
        gauge(never_import) connected_state, "Whether there is a stream to the control plane";
        gauge pending_requests, "Requests that wait for rate_limit_settings";
        counter rate_limit_enforced, "Times rate_limit_settings made a request wait";
    }
}

/// A subscription's statistics.
pub(super) struct SubscriptionStats {
    pub block: Stats<SubscriptionBlock>,
    version_text: TextReadout,
}

impl SubscriptionStats {
    pub fn new(store: &Arc<Store>, prefix: &str) -> Self {
        let scope = store.scope(prefix);
        Self {
            block: scope.block(),
            version_text: scope.text_readout("version_text"),
        }
    }

    /// An update of `version` was applied; `took` is told for streams only, as Envoy measures it.
    pub fn applied(&self, version: &str, took: Option<Duration>) {
        let stats = self.block.local();
        stats.update_success.inc();
        stats.update_time.set(unix_millis());
        if let Some(took) = took {
            stats.update_duration.record(millis(took));
        }
        stats.version.set(XxHash64::oneshot(0, version.as_bytes()));
        self.version_text.set(version);
    }
}

/// Milliseconds of Unix time, now.
pub(super) fn unix_millis() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A stream's statistics.
pub(super) struct ControlPlaneStats {
    pub block: Stats<ControlPlaneBlock>,
    identifier: TextReadout,
}

impl ControlPlaneStats {
    /// Below `scope`: the root for ADS, the subscription's own for a stream of one type.
    pub fn new(scope: &Scope) -> Self {
        let scope = scope.scope("control_plane");
        Self {
            block: scope.block(),
            identifier: scope.text_readout("identifier"),
        }
    }

    /// What the control plane calls itself in its responses.
    pub fn identified(&self, identifier: &str) {
        self.identifier.set(identifier);
    }
}
