//! RTDS: discovered layers of the runtime.

use std::sync::Arc;

use xds_protos::{
    envoy::{
        config::bootstrap::v3::{
            RuntimeLayer,
            runtime_layer::{LayerSpecifier, RtdsLayer},
        },
        service::runtime::v3::Runtime,
    },
    google::protobuf::Struct,
};

use crate::{
    config::{ConfigError, InitTarget},
    server::ServerContext,
    xds::{Change, WatchGuard},
};

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
        coverage!((), rtds => RtdsLayer { supported { name, rtds_config } });
        let Some(source) = rtds_config else { continue };
        let of = layer.name.clone();
        subscriptions.push(server.xds.watch_one::<Runtime>(
            server,
            "RTDS runtime",
            name,
            source,
            "runtime.".to_owned(),
            move |change, server| {
                // A layer that is removed is empty, as in Envoy.
                let values = match change {
                    Change::Set { proto, .. } => {
                        coverage!((), proto => Runtime { supported { name, layer } });
                        // The name is the one that was asked for.
                        let _ = name;
                        layer.unwrap_or_default()
                    }
                    Change::Removed => Struct::default(),
                    Change::Nothing => return Ok(()),
                };
                server
                    .runtime
                    .set_discovered(&of, &values)
                    .map_err(|reason| ConfigError::new("layer", reason))
            },
        ));
    }
    subscriptions
}
