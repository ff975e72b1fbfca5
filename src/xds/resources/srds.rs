//! SRDS: scopes, each a key and the route configuration that requests with this key are routed by.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use xds_protos::envoy::{
    config::{
        core::v3::ConfigSource,
        route::v3::{ScopedRouteConfiguration, scoped_route_configuration::key::fragment::Type as FragmentType},
    },
    extensions::filters::network::http_connection_manager::v3::{
        ScopedRds, ScopedRouteConfigurationsList, ScopedRoutes, scoped_routes::ConfigSpecifier,
    },
};

use super::rds::{RouteConfigs, RouteSlot};
use crate::{
    config::{BuildCx, ConfigError, ConfigResult, InitTarget},
    route::{RouteTable, ScopeKey, ScopeKeyBuilder},
    server::ServerContext,
    stats::Stats,
    stats_block,
    xds::{FetchFailure, Names, Rejected, Resource, ResourceHandler, Update, WatchGuard, open, stats::unix_millis},
};

stats_block! {
    /// Of one `scoped_routes` (`http.<stat_prefix>.scoped_rds.<name>.`).
    pub struct SrdsStats {
        counter config_reload, "Updates that changed the scopes";
        counter update_empty, "Updates without a resource";
        gauge config_reload_time_ms, "When the scopes changed last, in milliseconds of Unix time";
        gauge all_scopes, "Scopes";
        gauge active_scopes, "Scopes whose routes are subscribed";
        gauge on_demand_scopes, "Scopes whose routes are subscribed at first use";
    }
}

/// The scopes as of now.
pub struct ScopeSlot {
    scopes: ArcSwap<HashMap<ScopeKey, ScopeRoutes>>,
    subscription: OnceLock<(WatchGuard, InitTarget)>,
}

/// The routes of a scope.
#[derive(Clone)]
pub enum ScopeRoutes {
    /// `route_configuration_name`
    Rds(Arc<RouteSlot>),
    /// `route_configuration`
    Inline(Arc<RouteTable>),
}

impl ScopeRoutes {
    /// The table as of now.
    pub fn load(&self) -> Option<Arc<RouteTable>> {
        match self {
            Self::Rds(slot) => slot.load(),
            Self::Inline(table) => Some(table.clone()),
        }
    }
}

impl ScopeSlot {
    /// The route table of the scope with this key; none when there is no such scope, or its routes did not come yet.
    pub fn find(&self, key: &ScopeKey) -> Option<Arc<RouteTable>> {
        self.scopes.load().get(key)?.load()
    }

    /// Scopes written into the connection manager (`scoped_route_configurations_list`).
    pub fn fixed(
        scopes: Vec<ScopedRouteConfiguration>,
        rds: &ConfigSource,
        stat_prefix: &str,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Arc<Self>> {
        let mut map = HashMap::new();
        for (i, scope) in scopes.into_iter().enumerate() {
            let built = cx.item("scoped_route_configurations", i, |cx| {
                build(scope, rds, stat_prefix, cx)
            })?;
            map.insert(built.key, built.routes);
        }
        Ok(Arc::new(Self {
            scopes: ArcSwap::from_pointee(map),
            subscription: OnceLock::new(),
        }))
    }

    /// The scopes of a connection manager's `scoped_routes`, and how a request's key is made.
    pub fn build(
        proto: ScopedRoutes,
        stat_prefix: &str,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<(Arc<Self>, ScopeKeyBuilder)> {
        coverage!(cx, proto => ScopedRoutes {
            supported { name, scope_key_builder, rds_config_source, config_specifier }
        });
        let builder = cx.required("scope_key_builder", scope_key_builder, ScopeKeyBuilder::build)?;
        // Only scopes with inline routes do without it.
        let rds = rds_config_source.unwrap_or_default();
        let slot = match config_specifier {
            Some(ConfigSpecifier::ScopedRds(scoped)) => {
                cx.field("scoped_rds", |cx| Self::subscribe(&name, scoped, &rds, stat_prefix, cx))?
            }
            Some(ConfigSpecifier::ScopedRouteConfigurationsList(ScopedRouteConfigurationsList {
                scoped_route_configurations,
            })) => cx.field("scoped_route_configurations_list", |cx| {
                Self::fixed(scoped_route_configurations, &rds, stat_prefix, cx)
            })?,
            None => return Err(cx.error_at("config_specifier", "value is required")),
        };
        Ok((slot, builder))
    }

    /// Subscribes to the scopes of `scoped_rds`; `name` is `scoped_routes.name`, `rds` its `rds_config_source`,
    /// `stat_prefix` the connection manager's (`http.ingress_http.`). Pushes an init target into `cx`: it is ready
    /// when the scopes and their routes are there.
    pub fn subscribe(
        name: &str,
        scoped_rds: ScopedRds,
        rds: &ConfigSource,
        stat_prefix: &str,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Arc<Self>> {
        let server = cx.server;
        coverage!(cx, scoped_rds => ScopedRds {
            supported { scoped_rds_config_source }
            rejected { srds_resources_locator: "xdstp collections" }
        });
        let Some(source) = scoped_rds_config_source else {
            return Err(cx.error_at("scoped_rds_config_source", "value is required"));
        };
        server.xds.check(&source, cx)?;
        let slot = Arc::new(Self {
            scopes: ArcSwap::default(),
            subscription: OnceLock::new(),
        });
        let (ready, receiver) = watch::channel(false);
        let prefix = format!("{stat_prefix}scoped_rds.{name}.");
        let handler = Srds {
            stats: server.stats.scope(&prefix).block(),
            prefix,
            routes_prefix: stat_prefix.to_owned(),
            rds: rds.clone(),
            scopes: BTreeMap::new(),
            slot: Arc::downgrade(&slot),
            ready: Some(ready),
        };
        let type_url = xds_protos::type_url::<ScopedRouteConfiguration>();
        let guard = server
            .xds
            .watch(server, &type_url, &source, Names::Wildcard, Box::new(handler));
        let target = InitTarget {
            name: format!("SRDS {name}"),
            ready: receiver,
        };
        cx.wait_for(target.clone());
        let _ = slot.subscription.set((guard, target));
        Ok(slot)
    }
}

struct Scope {
    key: ScopeKey,
    routes: ScopeRoutes,
}

struct Srds {
    prefix: String,
    // Of the connection manager: its routes' statistics stand beside those of the scopes.
    routes_prefix: String,
    stats: Stats<SrdsStats>,
    rds: ConfigSource,
    // By the name of the scope.
    scopes: BTreeMap<String, Scope>,
    slot: std::sync::Weak<ScopeSlot>,
    // Taken when the first answer came.
    ready: Option<watch::Sender<bool>>,
}

impl ResourceHandler for Srds {
    fn stat_prefix(&self) -> String {
        self.prefix.clone()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        if update.added.is_empty() && update.removed.is_empty() {
            self.stats.local().update_empty.inc();
        }
        for name in &update.removed {
            self.scopes.remove(name);
        }
        let mut rejected = Vec::new();
        let mut waits = Vec::new();
        for resource in update.added {
            let name = resource.name.clone();
            if let Err(error) = self.add(resource, &mut waits, server) {
                rejected.push(Rejected::new(name, &error));
            }
        }
        self.publish();
        if let Some(ready) = self.ready.take() {
            tokio::task::spawn_local(async move {
                for mut target in waits {
                    // An error means that the watch is gone, and nothing more to wait for.
                    let _ = target.ready.wait_for(|ready| *ready).await;
                }
                ready.send_replace(true);
            });
        }
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        if !matches!(reason, FetchFailure::Connection(_))
            && let Some(ready) = self.ready.take()
        {
            ready.send_replace(true);
        }
    }
}

impl Srds {
    fn add(
        &mut self,
        resource: Resource,
        waits: &mut Vec<InitTarget>,
        server: &Arc<ServerContext>,
    ) -> ConfigResult<()> {
        let mut cx = BuildCx::new(server);
        let proto: ScopedRouteConfiguration = open(&resource.any, &cx)?;
        let scope = build(proto, &self.rds, &self.routes_prefix, &mut cx)?;
        let conflict = self
            .scopes
            .iter()
            .find(|(name, other)| **name != resource.name && other.key == scope.key);
        if let Some((other, _)) = conflict {
            let reason = format!(
                "scope key conflict found, first scope is {other}, second scope is {}",
                resource.name
            );
            return Err(ConfigError::new("", reason));
        }
        waits.append(&mut cx.init);
        self.scopes.insert(resource.name, scope);
        Ok(())
    }

    fn publish(&self) {
        let map: HashMap<_, _> = self
            .scopes
            .values()
            .map(|s| (s.key.clone(), s.routes.clone()))
            .collect();
        let count = map.len() as u64;
        if let Some(slot) = self.slot.upgrade() {
            slot.scopes.store(Arc::new(map));
        }
        let stats = self.stats.local();
        stats.config_reload.inc();
        stats.config_reload_time_ms.set(unix_millis());
        stats.all_scopes.set(count);
        stats.active_scopes.set(count);
    }
}

fn build(
    proto: ScopedRouteConfiguration,
    rds: &ConfigSource,
    stat_prefix: &str,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Scope> {
    coverage!(cx, proto => ScopedRouteConfiguration {
        supported { name, route_configuration_name, route_configuration, key }
        ignored { on_demand: "the routes are subscribed at once" }
    });
    let mut values = ScopeKey::new();
    for fragment in key.unwrap_or_default().fragments {
        match fragment.r#type {
            Some(FragmentType::StringKey(value)) => values.push(value),
            None => return Err(cx.error_at("key.fragments", "value is required")),
        }
    }
    let routes = match route_configuration {
        Some(inline) => ScopeRoutes::Inline(cx.field("route_configuration", |cx| RouteTable::build(inline, cx))?),
        None if route_configuration_name.is_empty() => {
            return Err(cx.error_at("route_configuration_name", format!("scope {name} names no routes")));
        }
        None => ScopeRoutes::Rds(RouteConfigs::subscribe(
            &route_configuration_name,
            rds,
            stat_prefix,
            cx,
        )?),
    };
    Ok(Scope { key: values, routes })
}
