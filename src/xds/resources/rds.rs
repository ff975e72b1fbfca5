//! RDS: route configurations, shared by all listeners that name the same one from the same source.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use xds_protos::{
    envoy::config::{core::v3::ConfigSource, route::v3::RouteConfiguration},
    google::protobuf::Any,
    prost::Message,
};

use super::vhds::{self, VirtualHosts};
use crate::{
    config::{BuildCx, ConfigResult, InitTarget},
    http::filter::OnDemandRoutes,
    route::RouteTable,
    server::ServerContext,
    stats::Stats,
    stats_block,
    xds::{Change, WatchGuard, stats::unix_millis},
};

stats_block! {
    /// A route configuration's own (`http.<stat_prefix>.rds.<name>.`), beside those of its subscription.
    pub struct RdsStats {
        counter config_reload, "Versions that changed the routes";
        counter update_empty, "Updates without a resource";
        gauge(never_import) config_reload_time_ms, "When the routes changed last, in milliseconds of Unix time";
    }
}

/// All subscribed route configurations. A slot lives while a listener holds it.
#[derive(Default)]
pub struct RouteConfigs(Mutex<HashMap<Key, Weak<RouteSlot>>>, Mutex<Vec<Inline>>);

/// Routes written into a connection manager, for as long as their table is there.
struct Inline {
    table: Weak<RouteTable>,
    shown: AppliedRoutes,
}

// Name and encoded source: two listeners share a subscription only if both are the same.
type Key = (String, Vec<u8>);

impl RouteConfigs {
    /// The slot of route configuration `name` from `source`, subscribed at the first call, with an init target
    /// pushed into `cx` while it has no first answer. `stat_prefix` is the connection manager's
    /// (`http.ingress_http.`); statistics stand below `<stat_prefix>rds.<name>.`, the first caller's as in Envoy.
    pub fn subscribe(
        name: &str,
        source: &ConfigSource,
        stat_prefix: &str,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Arc<RouteSlot>> {
        let server = cx.server;
        server.xds.check(source, cx)?;
        let key = (name.to_owned(), source.encode_to_vec());
        let slot = {
            let mut slots = server.xds.routes.0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| slot.strong_count() > 0);
            match slots.get(&key).and_then(Weak::upgrade) {
                Some(slot) => slot,
                None => {
                    let slot = RouteSlot::subscribe(name, source, stat_prefix, server);
                    slots.insert(key, Arc::downgrade(&slot));
                    slot
                }
            }
        };
        if let Some((_, target)) = slot.subscription.get()
            && !*target.ready.borrow()
        {
            cx.wait_for(target.clone());
        }
        Ok(slot)
    }

    /// Remembers routes that were written into a connection manager, for `/config_dump`.
    pub fn add_inline(&self, config: &RouteConfiguration, table: &Arc<RouteTable>) {
        let mut all = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|inline| inline.table.strong_count() > 0);
        }
        all.push(Inline {
            table: Arc::downgrade(table),
            shown: AppliedRoutes {
                name: config.name.clone(),
                version: String::new(),
                resource: xds_protos::any::pack(config),
                last_updated: SystemTime::now(),
            },
        });
    }

    /// `static_route_configs` of `/config_dump`, in the order they came.
    pub fn inline(&self) -> Vec<AppliedRoutes> {
        let all = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = all.iter().filter(|inline| inline.table.strong_count() > 0);
        alive.map(|inline| inline.shown.clone()).collect()
    }

    /// What was applied last of each route configuration, in the order of their names: `dynamic_route_configs` of
    /// `/config_dump`.
    pub fn applied(&self) -> Vec<Arc<AppliedRoutes>> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut applied: Vec<_> = slots
            .values()
            .filter_map(Weak::upgrade)
            .filter_map(|slot| slot.applied.load_full())
            .collect();
        applied.sort_by(|a, b| a.name.cmp(&b.name));
        applied
    }
}

/// The version of a route configuration that is in use.
#[derive(Debug, Clone)]
pub struct AppliedRoutes {
    /// Its name.
    pub name: String,
    /// `version_info`
    pub version: String,
    /// As it came.
    pub resource: Any,
    /// When it was applied.
    pub last_updated: SystemTime,
}

/// The current table of one route configuration: swapped by the control thread, loaded once per stream.
pub struct RouteSlot {
    name: Arc<str>,
    table: ArcSwapOption<RouteTable>,
    applied: ArcSwapOption<AppliedRoutes>,
    stats: Stats<RdsStats>,
    // The connection manager's, for what VHDS counts.
    stat_prefix: String,
    base: Mutex<Base>,
    answers: watch::Sender<u64>,
    // Set right after the slot is made: the subscription's handler points back at it.
    subscription: OnceLock<(WatchGuard, InitTarget)>,
}

/// What the table is built from.
#[derive(Default)]
struct Base {
    config: Option<RouteConfiguration>,
    hosts: VirtualHosts,
    // The source it watches and the watch.
    vhds: Option<(ConfigSource, WatchGuard)>,
}

impl RouteSlot {
    fn subscribe(name: &str, source: &ConfigSource, stat_prefix: &str, server: &Arc<ServerContext>) -> Arc<Self> {
        let prefix = format!("{stat_prefix}rds.{name}.");
        let slot = Arc::new(Self {
            name: name.into(),
            table: ArcSwapOption::empty(),
            applied: ArcSwapOption::empty(),
            stats: server.stats.scope(&prefix).block(),
            stat_prefix: stat_prefix.to_owned(),
            base: Mutex::default(),
            answers: watch::Sender::new(0),
            subscription: OnceLock::new(),
        });
        let weak = Arc::downgrade(&slot);
        let subscription = server.xds.watch_one::<RouteConfiguration>(
            server,
            "RDS configuration",
            name,
            source,
            prefix,
            move |change, server| match weak.upgrade() {
                Some(slot) => slot.apply(change, server),
                None => Ok(()),
            },
        );
        let _ = slot.subscription.set(subscription);
        slot
    }

    fn apply(
        self: &Arc<Self>,
        change: Change<'_, RouteConfiguration>,
        server: &Arc<ServerContext>,
    ) -> ConfigResult<()> {
        let (proto, resource) = match change {
            Change::Set { proto, resource } => (proto, resource),
            Change::Removed => {
                // As Envoy: routes go away with the listener that names them.
                tracing::warn!(name = %self.name, "ignoring a request to remove a route configuration that is in use");
                return Ok(());
            }
            Change::Nothing => {
                self.stats.local().update_empty.inc();
                return Ok(());
            }
        };
        let same = self.applied.load().as_ref().is_some_and(|a| a.resource == resource.any);
        if !same {
            let source = proto.vhds.as_ref().map(|v| v.config_source.clone().unwrap_or_default());
            if let Some(source) = &source {
                let mut cx = BuildCx::new(server);
                cx.field("vhds.config_source", |cx| server.xds.check(source, cx))?;
            }
            let hosts = self.virtual_hosts();
            self.rebuild(&proto, &hosts, server)?;
            let mut base = self.base();
            base.config = Some(proto);
            match source {
                None => (base.vhds, base.hosts) = (None, VirtualHosts::new()),
                Some(source) if base.vhds.as_ref().is_some_and(|(s, _)| *s == source) => {}
                Some(source) => {
                    let slot = Arc::downgrade(self);
                    let guard = vhds::subscribe(slot, &self.name, &source, &self.stat_prefix, server);
                    base.vhds = Some((source, guard));
                }
            }
        }
        self.applied.store(Some(Arc::new(AppliedRoutes {
            name: resource.name.clone(),
            version: resource.version.clone(),
            resource: resource.any.clone(),
            last_updated: SystemTime::now(),
        })));
        Ok(())
    }

    fn rebuild(
        &self,
        config: &RouteConfiguration,
        hosts: &VirtualHosts,
        server: &Arc<ServerContext>,
    ) -> ConfigResult<()> {
        let mut config = config.clone();
        config.virtual_hosts.extend(hosts.values().cloned());
        let mut cx = BuildCx::new(server);
        let table = RouteTable::build(config, &mut cx)?;
        for ignored in &cx.ignored {
            tracing::warn!(route_config = %self.name, field = %ignored.path, "field has no effect: {}", ignored.why);
        }
        self.table.store(Some(table));
        let stats = self.stats.local();
        stats.config_reload.inc();
        stats.config_reload_time_ms.set(unix_millis());
        Ok(())
    }

    pub(super) fn virtual_hosts(&self) -> VirtualHosts {
        self.base().hosts.clone()
    }

    /// Replaces the virtual hosts that came by VHDS.
    pub(super) fn set_virtual_hosts(&self, hosts: VirtualHosts, server: &Arc<ServerContext>) -> ConfigResult<()> {
        let config = self.base().config.clone();
        if let Some(config) = config {
            self.rebuild(&config, &hosts, server)?;
        }
        self.base().hosts = hosts;
        self.answered();
        Ok(())
    }

    /// VHDS answered, be it with nothing.
    pub(super) fn answered(&self) {
        self.answers.send_modify(|n| *n += 1);
    }

    fn base(&self) -> std::sync::MutexGuard<'_, Base> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `route_config_name`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The table as of now; none before the first answer (Envoy answers 404 `NR` then).
    pub fn load(&self) -> Option<Arc<RouteTable>> {
        self.table.load_full()
    }
}

impl OnDemandRoutes for RouteSlot {
    fn demand(&self, host: &str) -> Option<watch::Receiver<u64>> {
        let answers = self.answers.subscribe();
        let base = self.base();
        let (_, guard) = base.vhds.as_ref()?;
        guard.demand(&format!("{}/{host}", self.name));
        Some(answers)
    }

    fn load(&self) -> Option<Arc<RouteTable>> {
        Self::load(self)
    }
}
