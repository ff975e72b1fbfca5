//! ECDS: the configuration of a filter, replaced while its chain serves.

use std::{
    any::Any as StdAny,
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use xds_protos::{
    any,
    envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig},
    google::protobuf::Any,
    prost::Message,
};

use crate::{
    config::{BuildCx, ConfigError, ConfigResult, InitTarget, plain},
    server::ServerContext,
    stats::Stats,
    stats_block,
    xds::{FetchFailure, Names, Rejected, Resource, ResourceHandler, Update, WatchGuard, open},
};

stats_block! {
    /// Of one discovered extension (`extension_config_discovery.<category>.<name>.`).
    pub struct EcdsStats {
        counter config_reload, "Configurations applied";
        counter config_fail, "Configurations that could not be applied, and subscriptions that failed";
        counter config_conflict, "Configurations that do not fit where they are used";
    }
}

/// All discovered extensions. A slot lives while a chain holds it.
#[derive(Default)]
pub struct ExtensionConfigs(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    by_key: HashMap<Key, Weak<dyn StdAny + Send + Sync>>,
    applied: HashMap<(&'static str, String), Weak<ArcSwapOption<AppliedExtension>>>,
}

// Category, name, encoded source: what is the same for two chains is shared.
type Key = (&'static str, String, Vec<u8>);

/// The version of a discovered extension that is in use: an entry of `EcdsConfigDump`.
#[derive(Debug)]
pub struct AppliedExtension {
    /// Its name.
    pub name: String,
    /// `version_info`
    pub version: String,
    /// The `TypedExtensionConfig` as it came.
    pub resource: Any,
    /// When it was applied.
    pub last_updated: SystemTime,
}

/// The current configuration of one discovered extension.
pub struct ExtensionSlot<T> {
    name: Arc<str>,
    current: Arc<ArcSwapOption<T>>,
    applied: Arc<ArcSwapOption<AppliedExtension>>,
    subscription: OnceLock<(WatchGuard, InitTarget)>,
}

impl<T> ExtensionSlot<T> {
    /// The filter's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The configuration as of now; none before the first answer, unless there is a default. Envoy answers such
    /// requests with 500 and counts `extension_config_missing`.
    pub fn load(&self) -> Option<Arc<T>> {
        self.current.load_full()
    }
}

impl ExtensionConfigs {
    /// The slot of extension `name` (`config_discovery`), with an init target pushed into `cx` while it has to be
    /// waited for. `category` is Envoy's, for statistics: `http_filter`, `network_filter`, `listener_filter`,
    /// `upstream_http_filter`. `build` makes the runtime object of a `typed_config`.
    pub fn subscribe<T: Send + Sync + 'static>(
        category: &'static str,
        name: &str,
        source: ExtensionConfigSource,
        cx: &mut BuildCx<'_>,
        build: impl Fn(&Any, &mut BuildCx<'_>) -> ConfigResult<T> + Send + 'static,
    ) -> ConfigResult<Arc<ExtensionSlot<T>>> {
        let server = cx.server;
        let key = (category, name.to_owned(), source.encode_to_vec());
        let known = {
            let slots = server.xds.extensions.lock();
            slots.by_key.get(&key).and_then(Weak::upgrade)
        };
        let slot = match known.and_then(|slot| slot.downcast::<ExtensionSlot<T>>().ok()) {
            Some(slot) => slot,
            None => {
                let slot = Arc::new(new_slot(category, name, source, cx, build)?);
                let erased: Arc<dyn StdAny + Send + Sync> = slot.clone();
                let mut slots = server.xds.extensions.lock();
                slots.by_key.retain(|_, slot| slot.strong_count() > 0);
                slots.applied.retain(|_, applied| applied.strong_count() > 0);
                slots.by_key.insert(key, Arc::downgrade(&erased));
                slots
                    .applied
                    .insert((category, name.to_owned()), Arc::downgrade(&slot.applied));
                slot
            }
        };
        if let Some((_, target)) = slot.subscription.get()
            && !*target.ready.borrow()
        {
            cx.wait_for(target.clone());
        }
        Ok(slot)
    }

    /// What was applied last of each extension, for `EcdsConfigDump`.
    pub fn applied(&self) -> Vec<Arc<AppliedExtension>> {
        let slots = self.lock();
        let mut applied: Vec<_> = slots
            .applied
            .values()
            .filter_map(Weak::upgrade)
            .filter_map(|a| a.load_full())
            .collect();
        applied.sort_by(|a, b| a.name.cmp(&b.name));
        applied
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_slot<T: Send + Sync + 'static>(
    category: &'static str,
    name: &str,
    source: ExtensionConfigSource,
    cx: &mut BuildCx<'_>,
    build: impl Fn(&Any, &mut BuildCx<'_>) -> ConfigResult<T> + Send + 'static,
) -> ConfigResult<ExtensionSlot<T>> {
    let server = cx.server;
    coverage!(cx, source => ExtensionConfigSource {
        supported { config_source, default_config, apply_default_config_without_warming, type_urls }
    });
    let Some(config_source) = config_source else {
        return Err(cx.error_at("config_source", "value is required"));
    };
    cx.field("config_source", |cx| server.xds.check(&config_source, cx))?;
    let default = cx.opt("default_config", default_config, |any, cx| {
        check_type(&any, &type_urls).map_err(|reason| cx.error(reason))?;
        build(&plain(any, cx)?, cx).map(Arc::new)
    })?;
    let current = Arc::new(ArcSwapOption::empty());
    let (ready, receiver) = watch::channel(apply_default_config_without_warming && default.is_some());
    if *receiver.borrow() {
        current.store(default.clone());
    }
    let applied = Arc::new(ArcSwapOption::empty());
    let prefix = format!("extension_config_discovery.{category}.{name}.");
    let handler = Ecds {
        name: name.to_owned(),
        stats: server.stats.scope(&prefix).block(),
        prefix,
        type_urls,
        default,
        current: current.clone(),
        applied: applied.clone(),
        ready,
        build,
    };
    let type_url = xds_protos::type_url::<TypedExtensionConfig>();
    let names = Names::One(name.to_owned());
    let guard = server
        .xds
        .watch(server, &type_url, &config_source, names, Box::new(handler));
    let target = InitTarget {
        name: format!("TypedExtensionConfig {name}"),
        ready: receiver,
    };
    Ok(ExtensionSlot {
        name: name.into(),
        current,
        applied,
        subscription: OnceLock::from((guard, target)),
    })
}

struct Ecds<T, B> {
    name: String,
    prefix: String,
    stats: Stats<EcdsStats>,
    type_urls: Vec<String>,
    default: Option<Arc<T>>,
    current: Arc<ArcSwapOption<T>>,
    applied: Arc<ArcSwapOption<AppliedExtension>>,
    ready: watch::Sender<bool>,
    build: B,
}

impl<T: Send + Sync, B: Fn(&Any, &mut BuildCx<'_>) -> ConfigResult<T>> ResourceHandler for Ecds<T, B> {
    fn stat_prefix(&self) -> String {
        self.prefix.clone()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for resource in update.added {
            if let Err(error) = self.apply(resource, server) {
                self.stats.local().config_fail.inc();
                self.fall_back();
                rejected.push(Rejected::new(&self.name, &error));
            }
        }
        if update.removed.contains(&self.name) {
            self.applied.store(None);
            self.current.store(self.default.clone());
        }
        self.ready.send_replace(true);
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        if matches!(reason, FetchFailure::Connection(_)) {
            return;
        }
        self.stats.local().config_fail.inc();
        self.fall_back();
        self.ready.send_replace(true);
    }
}

impl<T, B: Fn(&Any, &mut BuildCx<'_>) -> ConfigResult<T>> Ecds<T, B> {
    fn apply(&self, resource: Resource, server: &Arc<ServerContext>) -> ConfigResult<()> {
        let mut cx = BuildCx::new(server);
        if resource.name != self.name {
            let reason = format!(
                "Unexpected resource name in ExtensionConfigDS response: {}",
                resource.name
            );
            return Err(ConfigError::new("", reason));
        }
        let same = self.applied.load().as_ref().is_some_and(|a| a.resource == resource.any);
        if !same {
            let config: TypedExtensionConfig = open(&resource.any, &cx)?;
            let any = config.typed_config.unwrap_or_default();
            check_type(&any, &self.type_urls).map_err(|reason| cx.error(reason))?;
            let built = cx.field("typed_config", |cx| (self.build)(&plain(any.clone(), cx)?, cx))?;
            self.current.store(Some(Arc::new(built)));
            self.stats.local().config_reload.inc();
        }
        self.applied.store(Some(Arc::new(AppliedExtension {
            name: resource.name,
            version: resource.version,
            resource: resource.any,
            last_updated: SystemTime::now(),
        })));
        Ok(())
    }

    // Whatever was applied before stays; the default serves only where there is nothing.
    fn fall_back(&self) {
        if self.current.load().is_none() {
            self.current.store(self.default.clone());
        }
    }
}

/// `type_urls` says what the chain can take; a `TypedStruct` counts as what is in it.
fn check_type(config: &Any, type_urls: &[String]) -> Result<(), String> {
    let inner = any::inner_type_name(config).map_err(|e| e.to_string())?;
    if type_urls.iter().any(|url| any::type_name(url) == inner) {
        return Ok(());
    }
    let expected: Vec<_> = type_urls.iter().map(|url| any::type_name(url)).collect();
    Err(format!(
        "Error: filter config has type URL {inner} but expect {}.",
        expected.join(", ")
    ))
}
