//! VHDS: virtual hosts of a route configuration that come on their own, at the control plane's will or on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use xds_protos::envoy::config::{core::v3::ConfigSource, route::v3::VirtualHost};

use super::rds::RouteSlot;
use crate::{
    config::BuildCx,
    server::ServerContext,
    stats::Stats,
    stats_block,
    xds::{FetchFailure, Names, Rejected, ResourceHandler, Update, WatchGuard, open},
};

stats_block! {
    /// Of one route configuration's virtual hosts (`http.<stat_prefix>.rds.vhds.<name>.`).
    pub struct VhdsStats {
        counter config_reload, "Updates that changed the virtual hosts";
        counter update_empty, "Updates without a resource";
    }
}

/// The virtual hosts that came, by resource name.
pub(super) type VirtualHosts = BTreeMap<String, VirtualHost>;

/// Subscribes to the virtual hosts of `slot`.
pub(super) fn subscribe(
    slot: Weak<RouteSlot>,
    name: &str,
    source: &ConfigSource,
    stat_prefix: &str,
    server: &Arc<ServerContext>,
) -> WatchGuard {
    let prefix = format!("{stat_prefix}rds.vhds.{name}.");
    let handler = Vhds {
        stats: server.stats.scope(&prefix).block(),
        prefix,
        slot,
    };
    let type_url = xds_protos::type_url::<VirtualHost>();
    let names = Names::Namespace(name.to_owned());
    server.xds.watch(server, &type_url, source, names, Box::new(handler))
}

struct Vhds {
    prefix: String,
    stats: Stats<VhdsStats>,
    slot: Weak<RouteSlot>,
}

impl ResourceHandler for Vhds {
    fn stat_prefix(&self) -> String {
        self.prefix.clone()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        let Some(slot) = self.slot.upgrade() else {
            return Vec::new();
        };
        if update.added.is_empty() && update.removed.is_empty() {
            slot.answered();
            return Vec::new();
        }
        let mut rejected = Vec::new();
        let mut hosts = slot.virtual_hosts();
        for name in &update.removed {
            hosts.remove(name);
        }
        let mut names = Vec::new();
        for resource in &update.added {
            match open::<VirtualHost>(&resource.any, &BuildCx::new(server)) {
                Ok(host) => {
                    hosts.insert(resource.name.clone(), host);
                    names.push(resource.name.clone());
                }
                Err(error) => rejected.push(Rejected::new(&resource.name, &error)),
            }
        }
        // The hosts stand in one table: together they are taken or refused.
        match slot.set_virtual_hosts(hosts, server) {
            Ok(()) => self.stats.local().config_reload.inc(),
            Err(error) => rejected.extend(names.into_iter().map(|name| Rejected::new(name, &error))),
        }
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        if !matches!(reason, FetchFailure::Connection(_))
            && let Some(slot) = self.slot.upgrade()
        {
            slot.answered();
        }
    }
}
