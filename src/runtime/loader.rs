//! The layers of this process, and how a change of one becomes a snapshot.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use xds_protos::{envoy::config::bootstrap::v3::LayeredRuntime, google::protobuf::Struct};

use super::{
    Entry, Key, Layer, Snapshot,
    key::Keys,
    layer::{self, LayerConfig, Source},
    snapshot::Values,
};
use crate::{
    config::ConfigResult,
    stats::{Stats, Store},
    stats_block,
};

stats_block! {
    /// `runtime.*`
    struct RuntimeStats {
        gauge(never_import) admin_overrides_active, "1 if any value was set over the admin interface";
        gauge(never_import) deprecated_feature_seen_since_process_start, "Deprecated features used since the start";
        counter deprecated_feature_use, "Uses of deprecated features";
        counter load_error, "Loads in which a layer could not be read";
        counter load_success, "Loads without an error";
        gauge(never_import) num_keys, "Keys that have a value";
        gauge(never_import) num_layers, "Layers that could be read";
        counter override_dir_exists, "Loads with more than one disk layer";
        counter override_dir_not_exists, "Loads with at most one disk layer";
    }
}

/// Why values cannot be set over the admin interface.
#[derive(Debug, thiserror::Error)]
pub enum ModifyError {
    /// The bootstrap has no `admin_layer`.
    #[error("No admin layer specified")]
    NoAdminLayer,
    /// The text is no YAML.
    #[error("{0}")]
    Unreadable(String),
}

/// Told of every snapshot, with the one before it.
type OnChange = Box<dyn Fn(&Snapshot, &Snapshot) + Send + Sync>;

/// The runtime of the process.
pub struct Runtime {
    layers: Vec<LayerConfig>,
    changing: Mutex<Changing>,
    snapshot: ArcSwap<Snapshot>,
    keys: Keys,
    stats: Stats<RuntimeStats>,
    maintenance: AtomicBool,
    on_change: OnceLock<OnChange>,
    /// Keys that Envoy has built in and that requests read.
    pub known: KnownKeys,
}

/// The layers that change.
#[derive(Default)]
struct Changing {
    admin: Arc<Values>,
    rtds: BTreeMap<String, Arc<Values>>,
}

/// Built-in keys, interned once.
#[derive(Debug, Clone, Default)]
pub struct KnownKeys {
    /// `upstream.use_retry`: percentage of retries that are made; 100.
    pub use_retry: Key,
    /// `upstream.base_retry_backoff_ms`: 25.
    pub base_retry_backoff_ms: Key,
    /// `upstream.healthy_panic_threshold`: percent; each cluster's own value is its default.
    pub healthy_panic_threshold: Key,
    /// `upstream.zone_routing.enabled`: percent; each cluster's own value is its default.
    pub zone_enabled: Key,
    /// `upstream.zone_routing.min_cluster_size`; each cluster's own value is its default.
    pub zone_min_cluster_size: Key,
    /// `upstream.zone_routing.force_local_zone.min_size`; each cluster's own value is its default.
    pub zone_force_local_min_size: Key,
    /// `load_balancing_policy.drop_overload_limit`: percent; each assignment's own value is its default.
    pub drop_overload_limit: Key,
    /// `overload.global_downstream_max_connections`: no limit.
    pub global_downstream_max_connections: Key,
    /// `outlier_detection.*`; each cluster's own values are their defaults.
    pub outlier_detection: OutlierKeys,
}

/// `outlier_detection.*`, of all clusters.
#[derive(Debug, Clone, Default)]
pub struct OutlierKeys {
    /// `consecutive_5xx`
    pub consecutive_5xx: Key,
    /// `consecutive_gateway_failure`
    pub consecutive_gateway_failure: Key,
    /// `consecutive_local_origin_failure`
    pub consecutive_local_origin_failure: Key,
    /// `enforcing_consecutive_5xx`, percent
    pub enforcing_consecutive_5xx: Key,
    /// `enforcing_consecutive_gateway_failure`, percent
    pub enforcing_consecutive_gateway_failure: Key,
    /// `enforcing_consecutive_local_origin_failure`, percent
    pub enforcing_consecutive_local_origin_failure: Key,
    /// `base_ejection_time_ms`
    pub base_ejection_time_ms: Key,
    /// `max_ejection_time_ms`
    pub max_ejection_time_ms: Key,
    /// `max_ejection_percent`
    pub max_ejection_percent: Key,
    /// `interval_ms`
    pub interval_ms: Key,
    /// `max_ejection_time_jitter_ms`
    pub max_ejection_time_jitter_ms: Key,
    /// `enforcing_success_rate`, percent
    pub enforcing_success_rate: Key,
    /// `enforcing_local_origin_success_rate`, percent
    pub enforcing_local_origin_success_rate: Key,
    /// `enforcing_failure_percentage`, percent
    pub enforcing_failure_percentage: Key,
    /// `enforcing_failure_percentage_local_origin`, percent
    pub enforcing_failure_percentage_local_origin: Key,
    /// `success_rate_minimum_hosts`
    pub success_rate_minimum_hosts: Key,
    /// `success_rate_request_volume`
    pub success_rate_request_volume: Key,
    /// `success_rate_stdev_factor`, thousandths
    pub success_rate_stdev_factor: Key,
    /// `failure_percentage_threshold`
    pub failure_percentage_threshold: Key,
    /// `failure_percentage_minimum_hosts`
    pub failure_percentage_minimum_hosts: Key,
    /// `failure_percentage_request_volume`
    pub failure_percentage_request_volume: Key,
}

impl OutlierKeys {
    fn new(runtime: &Runtime) -> Self {
        let key = |name: &str| runtime.key(&format!("outlier_detection.{name}"));
        Self {
            consecutive_5xx: key("consecutive_5xx"),
            consecutive_gateway_failure: key("consecutive_gateway_failure"),
            consecutive_local_origin_failure: key("consecutive_local_origin_failure"),
            enforcing_consecutive_5xx: key("enforcing_consecutive_5xx"),
            enforcing_consecutive_gateway_failure: key("enforcing_consecutive_gateway_failure"),
            enforcing_consecutive_local_origin_failure: key("enforcing_consecutive_local_origin_failure"),
            base_ejection_time_ms: key("base_ejection_time_ms"),
            max_ejection_time_ms: key("max_ejection_time_ms"),
            max_ejection_percent: key("max_ejection_percent"),
            interval_ms: key("interval_ms"),
            max_ejection_time_jitter_ms: key("max_ejection_time_jitter_ms"),
            enforcing_success_rate: key("enforcing_success_rate"),
            enforcing_local_origin_success_rate: key("enforcing_local_origin_success_rate"),
            enforcing_failure_percentage: key("enforcing_failure_percentage"),
            enforcing_failure_percentage_local_origin: key("enforcing_failure_percentage_local_origin"),
            success_rate_minimum_hosts: key("success_rate_minimum_hosts"),
            success_rate_request_volume: key("success_rate_request_volume"),
            success_rate_stdev_factor: key("success_rate_stdev_factor"),
            failure_percentage_threshold: key("failure_percentage_threshold"),
            failure_percentage_minimum_hosts: key("failure_percentage_minimum_hosts"),
            failure_percentage_request_volume: key("failure_percentage_request_volume"),
        }
    }
}

impl Runtime {
    /// Reads the layers once.
    ///
    /// # Errors
    /// Layers that Envoy refuses: two of a name, two admin layers, static values that are lists or nulls.
    pub fn new(proto: LayeredRuntime, service_cluster: &str, store: &Arc<Store>) -> ConfigResult<Self> {
        let mut runtime = Self {
            layers: layer::layers(proto, service_cluster)?,
            changing: Mutex::default(),
            snapshot: ArcSwap::default(),
            keys: Keys::default(),
            stats: store.scope("runtime.").block(),
            maintenance: AtomicBool::new(false),
            on_change: OnceLock::new(),
            known: KnownKeys::default(),
        };
        runtime.known = KnownKeys {
            use_retry: runtime.key("upstream.use_retry"),
            base_retry_backoff_ms: runtime.key("upstream.base_retry_backoff_ms"),
            healthy_panic_threshold: runtime.key("upstream.healthy_panic_threshold"),
            zone_enabled: runtime.key("upstream.zone_routing.enabled"),
            zone_min_cluster_size: runtime.key("upstream.zone_routing.min_cluster_size"),
            zone_force_local_min_size: runtime.key("upstream.zone_routing.force_local_zone.min_size"),
            drop_overload_limit: runtime.key("load_balancing_policy.drop_overload_limit"),
            global_downstream_max_connections: runtime.key("overload.global_downstream_max_connections"),
            outlier_detection: OutlierKeys::new(&runtime),
        };
        runtime.load();
        Ok(runtime)
    }

    /// The values as of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Interns a key. An empty name is [`Key::NONE`].
    pub fn key(&self, name: &str) -> Key {
        self.keys.intern(name, || self.snapshot())
    }

    /// A guard (`envoy.reloadable_features.*`) or any other switch, read where a resource is configured.
    pub fn enabled(&self, name: &str, default: bool) -> bool {
        self.snapshot.load().boolean(name, default)
    }

    /// Whether a request to this cluster is refused: `upstream.maintenance_mode.<cluster>`, a percentage.
    #[inline]
    pub fn in_maintenance(&self, cluster: &str) -> bool {
        self.maintenance.load(Ordering::Relaxed) && {
            let key = format!("upstream.maintenance_mode.{cluster}");
            self.snapshot.load().percent_feature(&key, 0, fastrand::u64(..))
        }
    }

    /// Sets who is told of changes beside the holders of keys; a second call has no effect.
    pub fn on_change(&self, tell: impl Fn(&Snapshot, &Snapshot) + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(tell));
    }

    /// Reads the layers again: at the start, and when the files of a disk layer were replaced.
    pub fn load(&self) {
        self.load_with(&self.lock());
    }

    /// Sets values over the admin interface; an empty text takes one back.
    pub fn modify(&self, values: impl IntoIterator<Item = (String, String)>) -> Result<(), ModifyError> {
        if !self.layers.iter().any(|l| matches!(l.source, Source::Admin)) {
            return Err(ModifyError::NoAdminLayer);
        }
        let mut changing = self.lock();
        let mut admin = (*changing.admin).clone();
        for (key, text) in values {
            if text.is_empty() {
                admin.remove(key.as_str());
            } else {
                admin.insert(key.into(), Entry::of_text(&text).map_err(ModifyError::Unreadable)?);
            }
        }
        self.stats
            .local()
            .admin_overrides_active
            .set((!admin.is_empty()).into());
        changing.admin = Arc::new(admin);
        self.load_with(&changing);
        Ok(())
    }

    /// Replaces the values of a discovered layer.
    ///
    /// # Errors
    /// What the NACK says.
    pub fn set_discovered(&self, layer: &str, values: &Struct) -> Result<(), String> {
        let values = Arc::new(layer::flatten(values)?);
        let mut changing = self.lock();
        changing.rtds.insert(layer.to_owned(), values);
        self.load_with(&changing);
        Ok(())
    }

    /// What to watch: every `symlink_root` of a disk layer, once per layer.
    pub fn watched_paths(&self) -> Vec<PathBuf> {
        let disk = self.layers.iter().filter_map(|layer| match &layer.source {
            Source::Disk(disk) => Some(disk.symlink_root.clone()),
            _ => None,
        });
        disk.collect()
    }

    fn load_with(&self, changing: &Changing) {
        let (mut layers, mut on_disk, mut failed) = (Vec::with_capacity(self.layers.len()), 0, false);
        for config in &self.layers {
            let values = match &config.source {
                Source::Static(values) => values.clone(),
                Source::Admin => changing.admin.clone(),
                Source::Rtds => changing.rtds.get(&config.name).cloned().unwrap_or_default(),
                Source::Disk(disk) => match disk.read() {
                    Ok(Some(values)) => {
                        on_disk += 1;
                        Arc::new(values)
                    }
                    Ok(None) => continue,
                    Err(reason) => {
                        failed = true;
                        tracing::warn!(layer = config.name, reason, "a runtime layer could not be read");
                        continue;
                    }
                },
            };
            layers.push(Layer {
                name: config.name.clone(),
                values,
            });
        }
        let snapshot = Arc::new(Snapshot::new(layers));
        let stats = self.stats.local();
        stats.num_layers.set(snapshot.layers().len() as u64);
        stats.num_keys.set(snapshot.len() as u64);
        if failed {
            stats.load_error.inc();
        } else {
            stats.load_success.inc();
        }
        if on_disk > 1 {
            stats.override_dir_exists.inc();
        } else {
            stats.override_dir_not_exists.inc();
        }
        let before = self.snapshot();
        self.keys.publish(&snapshot, || self.snapshot.store(snapshot.clone()));
        self.maintenance.store(snapshot.has_maintenance(), Ordering::Relaxed);
        if let Some(tell) = self.on_change.get() {
            tell(&before, &snapshot);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
