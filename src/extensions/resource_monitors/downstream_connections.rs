//! `envoy.resource_monitors.global_downstream_max_connections`: a limit of the connections of all listeners, which each
//! connection claims a part of when it is accepted.

use std::sync::Arc;

use xds_protos::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    server::overload::{ConnectionLimit, Monitor, ResourceMonitorFactory},
};

/// The extension.
pub struct Factory;

impl ResourceMonitorFactory for Factory {
    const NAME: &'static str = "envoy.resource_monitors.global_downstream_max_connections";
    const PROACTIVE: bool = true;
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor> {
        coverage!(cx, proto => Proto { supported { max_active_downstream_connections } });
        // The API's rules have seen to it that it is more than 0.
        let max = u64::try_from(max_active_downstream_connections).unwrap_or(1);
        Ok(Monitor::Connections(Arc::new(ConnectionLimit::new(max))))
    }
}
