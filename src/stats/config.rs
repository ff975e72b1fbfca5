//! `envoy.config.metrics.v3.StatsConfig`: which statistics exist, how their names become tags, which buckets
//! histograms are shown with.

use super::matcher::Matcher;

/// The configuration of the store; the default is Envoy's without a `stats_config`.
#[derive(Debug, Clone, Default)]
pub struct StatsConfig {
    pub(super) matcher: Matcher,
}
