//! Route tables: virtual host, route, action (`envoy.config.route.v3`).

use std::sync::Arc;

use crate::http::filter::RouteConfig;

/// A route that matched: keeps its table alive for the stream's life.
#[derive(Clone)]
pub struct RouteMatch {
    table: Arc<RouteTable>,
}

/// One `RouteConfiguration`, built.
pub struct RouteTable {}

impl RouteMatch {
    /// The most specific per-route configuration of the filter of this name.
    pub fn filter_config(&self, _filter: &str) -> Option<&RouteConfig> {
        let _ = &self.table;
        None
    }
}
