//! RTDS: layers of the runtime. What came is kept here; the runtime reads it when it is told of a change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use xds_protos::{
    envoy::{
        config::bootstrap::v3::{RuntimeLayer, runtime_layer::LayerSpecifier},
        service::runtime::v3::Runtime,
    },
    google::protobuf::Struct,
};

use crate::{
    config::InitTarget,
    server::ServerContext,
    xds::{Change, WatchGuard},
};

/// The discovered layers by the name of the layer in the bootstrap.
#[derive(Default)]
pub struct RuntimeLayers {
    layers: Mutex<BTreeMap<String, Struct>>,
    changed: watch::Sender<u64>,
}

impl RuntimeLayers {
    /// The layer as of now; none before its first answer.
    pub fn get(&self, layer: &str) -> Option<Struct> {
        self.lock().get(layer).cloned()
    }

    /// Changes with every update of any layer.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn set(&self, layer: &str, values: Struct) {
        self.lock().insert(layer.to_owned(), values);
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Struct>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscribes to every `rtds_layer` of the bootstrap.
pub fn subscribe<'a>(
    layers: impl Iterator<Item = &'a RuntimeLayer>,
    server: &Arc<ServerContext>,
) -> Vec<(WatchGuard, InitTarget)> {
    let mut subscriptions = Vec::new();
    for layer in layers {
        let Some(LayerSpecifier::RtdsLayer(rtds)) = &layer.layer_specifier else {
            continue;
        };
        let Some(source) = &rtds.rtds_config else { continue };
        let name = layer.name.clone();
        subscriptions.push(server.xds.watch_one::<Runtime>(
            server,
            "RTDS runtime",
            &rtds.name,
            source,
            "runtime.".to_owned(),
            move |change, server| {
                // A layer that is removed is empty, as in Envoy.
                let values = match change {
                    Change::Set { proto, .. } => proto.layer.unwrap_or_default(),
                    Change::Removed => Struct::default(),
                };
                server.xds.runtime.set(&name, values);
                Ok(())
            },
        ));
    }
    subscriptions
}
