//! The runtime at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::Entry;
use crate::config::FractionalPercent;

/// The keys of a layer with their values.
pub(super) type Values = BTreeMap<Arc<str>, Entry>;

/// A layer as it went into a snapshot.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its name in the bootstrap.
    pub name: String,
    /// Its values by key.
    pub values: Arc<BTreeMap<Arc<str>, Entry>>,
}

/// All layers and what they come to: of two that have a key the later one counts. Immutable.
///
/// Reading by name costs a hash; what requests read is a [`Key`](super::Key).
#[derive(Debug, Default)]
pub struct Snapshot {
    layers: Vec<Layer>,
    values: HashMap<Arc<str>, Entry>,
    circuit_breakers: bool,
    maintenance: bool,
}

impl Snapshot {
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        let mut values = HashMap::new();
        for layer in &layers {
            values.extend(layer.values.iter().map(|(key, entry)| (key.clone(), entry.clone())));
        }
        let any = |prefix: &str| values.keys().any(|key: &Arc<str>| key.starts_with(prefix));
        Self {
            circuit_breakers: any("circuit_breakers."),
            maintenance: any("upstream.maintenance_mode."),
            layers,
            values,
        }
    }

    /// The layers, in the order of the bootstrap. Layers that could not be read are not among them.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no key has a value, as in most proxies.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether any key begins with `circuit_breakers.`: such keys are per cluster and are not interned.
    pub fn has_circuit_breakers(&self) -> bool {
        self.circuit_breakers
    }

    /// Whether any key begins with `upstream.maintenance_mode.`
    pub fn has_maintenance(&self) -> bool {
        self.maintenance
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.values.get(key)
    }

    /// A whole number, or `default`.
    pub fn integer(&self, key: &str, default: u64) -> u64 {
        self.get(key).and_then(|e| e.integer).unwrap_or(default)
    }

    /// A number, or `default`.
    pub fn double(&self, key: &str, default: f64) -> f64 {
        self.get(key).and_then(|e| e.double).unwrap_or(default)
    }

    /// A truth value, or `default`; also the value of a guard (`envoy.reloadable_features.*`).
    pub fn boolean(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(|e| e.boolean).unwrap_or(default)
    }

    /// A share of requests, or `default`.
    pub fn share(&self, key: &str, default: FractionalPercent) -> FractionalPercent {
        self.get(key).and_then(Entry::share).unwrap_or(default)
    }

    /// Whether the one request with this random number belongs to a whole percentage of all.
    pub fn percent_feature(&self, key: &str, default: u64, random: u64) -> bool {
        random % 100 < self.integer(key, default).min(100)
    }
}
