//! `typed_per_filter_config`: what a route, virtual host or route configuration says to one filter.

use std::fmt;

use crate::http::filter::RouteConfig;

/// Per-filter configuration of one level, by the filter's configured name.
#[derive(Clone, Default)]
pub struct PerFilterConfigs(Box<[(String, PerFilter)]>);

#[derive(Clone)]
struct PerFilter {
    config: Option<RouteConfig>,
    disabled: bool,
}

impl PerFilterConfigs {
    fn entry(&self, filter: &str) -> Option<&PerFilter> {
        self.0.iter().find(|(name, _)| name == filter).map(|(_, f)| f)
    }

    /// The configuration of this filter on this level.
    pub fn get(&self, filter: &str) -> Option<&RouteConfig> {
        self.entry(filter)?.config.as_ref()
    }

    /// Whether this level disables (true) or enables (false) the filter; none when it does not name it.
    pub fn disabled(&self, filter: &str) -> Option<bool> {
        Some(self.entry(filter)?.disabled)
    }
}

impl fmt::Debug for PerFilterConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(n, p)| (n, p.disabled)))
            .finish()
    }
}
