//! `HealthCheck` -> [`Config`].

use std::time::Instant;

use xds_protos::envoy::extensions::filters::http::health_check::v3::HealthCheck as Proto;

use super::cache::Cache;
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    matching::HeaderMatcher,
    stats::Stats,
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.health_check.` statistics
    pub(super) struct HealthCheckStats {
        counter request_total, "Health checks answered here, from the cache too";
        counter failed, "Health checks that failed";
        counter ok, "Health checks that passed";
        counter cached_response, "Health checks answered from the cache";
        counter failed_cluster_not_found, "Failed because a cluster does not exist";
        counter failed_cluster_empty, "Failed because a cluster has no hosts";
        counter failed_cluster_unhealthy, "Failed because too few hosts of a cluster are healthy";
        counter degraded, "Health checks answered as degraded";
    }
}

/// The filter's configuration.
pub(super) struct Config {
    pub stats: Stats<HealthCheckStats>,
    /// `pass_through_mode`: the upstream answers, unless this server was told to fail.
    pub pass_through: bool,
    /// `cache_time`; none without one.
    pub cache: Option<Cache>,
    /// `headers`: all have to match.
    pub headers: Vec<HeaderMatcher>,
    /// `cluster_min_healthy_percentages`, whole percents; sorted, so that the same cluster is always asked first.
    pub clusters: Vec<(String, u64)>,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers }
        });
        let pass_through = pass_through_mode.is_some_and(|v| v.value);
        let cache_time = cache_time.or_duration(Default::default());
        if !pass_through && cache_time.as_millis() > 0 {
            return Err(cx.error_at(
                "cache_time",
                "cache_time_ms must not be set when path_through_mode is disabled",
            ));
        }
        let mut clusters: Vec<_> = cluster_min_healthy_percentages
            .into_iter()
            .map(|(name, percent)| (name, percent.value as u64))
            .collect();
        clusters.sort();
        Ok(Self {
            stats: cx
                .server
                .stats
                .scope(&format!("{}health_check", cx.http_prefix))
                .block(),
            pass_through,
            cache: (cache_time.as_millis() > 0).then(|| Cache::new(cache_time, Instant::now())),
            headers: cx.each("headers", headers, HeaderMatcher::build)?,
            clusters: if pass_through { Vec::new() } else { clusters },
        })
    }
}
