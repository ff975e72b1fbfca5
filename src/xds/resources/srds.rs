//! SRDS: scopes, each a key and the route configuration that requests with this key are routed by.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use xds_protos::{
    envoy::{
        config::{
            core::v3::ConfigSource,
            route::v3::{ScopedRouteConfiguration, scoped_route_configuration::key::fragment::Type as FragmentType},
        },
        extensions::filters::network::http_connection_manager::v3::{
            ScopedRds, ScopedRouteConfigurationsList, ScopedRoutes, scoped_routes::ConfigSpecifier,
        },
    },
    google::protobuf::Any,
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
        gauge(never_import) config_reload_time_ms, "When the scopes changed last, in milliseconds of Unix time";
        gauge(never_import) all_scopes, "Scopes";
        gauge(never_import) active_scopes, "Scopes whose routes are subscribed";
        gauge(never_import) on_demand_scopes, "Scopes whose routes are subscribed at first use";
    }
}

/// The scopes as of now.
pub struct ScopeSlot {
    scopes: ArcSwap<HashMap<ScopeKey, ScopeRoutes>>,
    subscription: OnceLock<(WatchGuard, InitTarget)>,
    shown: Mutex<ShownScopes>,
}

/// Scopes as `/config_dump` shows them.
#[derive(Debug, Clone)]
pub struct ShownScopes {
    /// `scoped_routes.name`
    pub name: String,
    /// `version_info`; none of scopes that are written into the connection manager.
    pub version: Option<String>,
    /// Each scope's name and what it came as.
    pub scopes: Vec<(String, Any)>,
    /// When they changed last.
    pub last_updated: SystemTime,
}

/// The scopes of all connection managers, in the order they came.
#[derive(Default)]
pub struct Scopes(Mutex<Vec<Weak<ScopeSlot>>>);

impl Scopes {
    fn add(&self, slot: &Arc<ScopeSlot>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|slot| slot.strong_count() > 0);
        all.push(Arc::downgrade(slot));
    }

    /// All of them; scopes that are discovered only once there was an answer.
    pub fn shown(&self) -> Vec<ShownScopes> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = all.iter().filter_map(Weak::upgrade);
        let shown = alive.map(|slot| slot.shown.lock().unwrap_or_else(PoisonError::into_inner).clone());
        shown.filter(|s| s.version.as_deref() != Some("")).collect()
    }
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
    fn fixed(name: &str, scopes: Vec<ScopedRouteConfiguration>, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let server = cx.server;
        let mut map = HashMap::new();
        let mut shown = Vec::with_capacity(scopes.len());
        for (i, scope) in scopes.into_iter().enumerate() {
            if !scope.route_configuration_name.is_empty() {
                return Err(cx.error(
                    "Fetching routes via RDS (route_configuration_name) is not supported with inline scoped routes.",
                ));
            }
            if scope.route_configuration.is_none() {
                return Err(cx.error("You must specify a route_configuration with inline scoped routes."));
            }
            shown.push((scope.name.clone(), xds_protos::any::pack(&scope)));
            let built = cx.item("scoped_route_configurations", i, |cx| {
                build(scope, &ConfigSource::default(), "", cx)
            })?;
            // Of two scopes with one key the later one is in use.
            map.insert(built.key, built.routes);
        }
        let slot = Arc::new(Self::new(name, None, shown));
        slot.scopes.store(Arc::new(map));
        server.xds.scopes.add(&slot);
        Ok(slot)
    }

    fn new(name: &str, version: Option<String>, scopes: Vec<(String, Any)>) -> Self {
        Self {
            scopes: ArcSwap::default(),
            subscription: OnceLock::new(),
            shown: Mutex::new(ShownScopes {
                name: name.to_owned(),
                version,
                scopes,
                last_updated: SystemTime::now(),
            }),
        }
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
                Self::fixed(&name, scoped_route_configurations, cx)
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
        let slot = Arc::new(Self::new(name, Some(String::new()), Vec::new()));
        server.xds.scopes.add(&slot);
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
    resource: Any,
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
        let mut rejected = Vec::new();
        let mut opened = Vec::with_capacity(update.added.len());
        for resource in update.added {
            match open::<ScopedRouteConfiguration>(&resource.any, &BuildCx::new(server)) {
                Ok(proto) => opened.push((resource, proto)),
                Err(error) => rejected.push(Rejected::new(resource.name, &error)),
            }
        }
        // Two scopes of one key: as in Envoy the whole update is refused, and nothing changes.
        if let Err(reason) = self.check_keys(&update.removed, &opened) {
            let error = ConfigError::new("", reason);
            rejected.extend(opened.into_iter().map(|(r, _)| Rejected::new(r.name, &error)));
            // The listener goes on without scopes.
            if let Some(ready) = self.ready.take() {
                ready.send_replace(true);
            }
            return rejected;
        }
        for name in &update.removed {
            self.scopes.remove(name);
        }
        let mut waits = Vec::new();
        for (resource, proto) in opened {
            let name = resource.name.clone();
            if let Err(error) = self.add(resource, proto, &mut waits, server) {
                rejected.push(Rejected::new(name, &error));
            }
        }
        self.publish(&update.version);
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
    /// Whether every scope would have a key of its own.
    fn check_keys(&self, removed: &[String], added: &[(Resource, ScopedRouteConfiguration)]) -> Result<(), String> {
        let replaced = |name: &String| removed.contains(name) || added.iter().any(|(r, _)| r.name == *name);
        let kept = self.scopes.iter().filter(|(name, _)| !replaced(name));
        let mut by_key: HashMap<ScopeKey, &str> =
            kept.map(|(name, scope)| (scope.key.clone(), name.as_str())).collect();
        for (resource, proto) in added {
            if let Some(first) = by_key.insert(key_of(proto), &resource.name) {
                return Err(format!(
                    "scope key conflict found, first scope is {first}, second scope is {}",
                    resource.name
                ));
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        resource: Resource,
        proto: ScopedRouteConfiguration,
        waits: &mut Vec<InitTarget>,
        server: &Arc<ServerContext>,
    ) -> ConfigResult<()> {
        let mut cx = BuildCx::new(server);
        let mut scope = build(proto, &self.rds, &self.routes_prefix, &mut cx)?;
        scope.resource = resource.any;
        waits.append(&mut cx.init);
        self.scopes.insert(resource.name, scope);
        Ok(())
    }

    fn publish(&self, version: &str) {
        let map: HashMap<_, _> = self
            .scopes
            .values()
            .map(|s| (s.key.clone(), s.routes.clone()))
            .collect();
        let count = map.len() as u64;
        if let Some(slot) = self.slot.upgrade() {
            slot.scopes.store(Arc::new(map));
            let mut shown = slot.shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.version = Some(version.to_owned());
            shown.scopes = self
                .scopes
                .iter()
                .map(|(name, scope)| (name.clone(), scope.resource.clone()))
                .collect();
            shown.last_updated = SystemTime::now();
        }
        let stats = self.stats.local();
        stats.config_reload.inc();
        stats.config_reload_time_ms.set(unix_millis());
        stats.all_scopes.set(count);
        stats.active_scopes.set(count);
    }
}

fn key_of(proto: &ScopedRouteConfiguration) -> ScopeKey {
    let fragments = proto.key.iter().flat_map(|key| &key.fragments);
    fragments
        .filter_map(|fragment| fragment.r#type.as_ref())
        .map(|FragmentType::StringKey(value)| value.clone())
        .collect()
}

fn build(
    proto: ScopedRouteConfiguration,
    rds: &ConfigSource,
    stat_prefix: &str,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Scope> {
    let values = key_of(&proto);
    coverage!(cx, proto => ScopedRouteConfiguration {
        supported { name, route_configuration_name, route_configuration, key }
        ignored { on_demand: "the routes are subscribed at once" }
    });
    // Read above.
    let _ = key;
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
    Ok(Scope {
        key: values,
        routes,
        resource: Any::default(),
    })
}
