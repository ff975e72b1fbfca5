//! `track_cluster_stats`: statistics of a cluster that are kept only where they are asked for.

use xds_protos::envoy::config::cluster::v3::TrackClusterStats;

use crate::{
    config::{BuildCx, ConfigResult},
    stats::{Scope, Stats},
    stats_block,
};

stats_block! {
    /// `track_cluster_stats.timeout_budgets`
    pub struct TimeoutBudgetStats {
        histogram(none) upstream_rq_timeout_budget_percent_used, "Percentage of the route's timeout that a request took";
        histogram(none) upstream_rq_timeout_budget_per_try_percent_used, "Percentage of per_try_timeout that an attempt took";
    }
}

stats_block! {
    /// `track_cluster_stats.request_response_sizes`
    pub struct SizeStats {
        histogram(bytes) upstream_rq_headers_size, "Size of a request's headers";
        histogram(none) upstream_rq_headers_count, "Number of a request's headers";
        histogram(bytes) upstream_rq_body_size, "Size of a request's body";
        histogram(bytes) upstream_rs_headers_size, "Size of a response's headers";
        histogram(none) upstream_rs_headers_count, "Number of a response's headers";
        histogram(bytes) upstream_rs_body_size, "Size of a response's body";
    }
}

/// What a cluster tracks.
#[derive(Default)]
pub struct OptionalStats {
    /// Histograms of timeouts.
    pub budgets: Option<Stats<TimeoutBudgetStats>>,
    /// Histograms of sizes.
    pub sizes: Option<Stats<SizeStats>>,
}

impl OptionalStats {
    /// None if nothing is tracked. `track_timeout_budgets` is the older switch of one of them.
    pub(super) fn build(
        proto: Option<TrackClusterStats>,
        track_timeout_budgets: bool,
        scope: &Scope,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Option<Box<Self>>> {
        let proto = proto.unwrap_or_default();
        coverage!(cx, proto => TrackClusterStats {
            supported { timeout_budgets, request_response_sizes }
            ignored { per_endpoint_stats: "endpoints are listed by /clusters alone" }
        });
        let timeout_budgets = timeout_budgets || track_timeout_budgets;
        Ok((timeout_budgets || request_response_sizes).then(|| {
            Box::new(Self {
                budgets: timeout_budgets.then(|| scope.block()),
                sizes: request_response_sizes.then(|| scope.block()),
            })
        }))
    }
}
