//! LDS: listeners, into the listener manager.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::watch;
use xds_protos::envoy::config::{core::v3::ConfigSource, listener::v3::Listener};

use crate::{
    config::InitTarget,
    server::ServerContext,
    xds::{FetchFailure, Names, Rejected, ResourceHandler, Update, WatchGuard, open::open_all},
};

/// Subscribes to all listeners (`dynamic_resources.lds_config`). The target is ready after the first answer; the
/// listeners in it may still be warming then.
pub fn subscribe(source: &ConfigSource, server: &Arc<ServerContext>) -> (WatchGuard, InitTarget) {
    let (ready, receiver) = watch::channel(false);
    let target = InitTarget {
        name: "LDS".to_owned(),
        ready: receiver,
    };
    let handler = Box::new(Lds { ready });
    let type_url = xds_protos::type_url::<Listener>();
    (
        server.xds.watch(server, &type_url, source, Names::Wildcard, handler),
        target,
    )
}

struct Lds {
    ready: watch::Sender<bool>,
}

impl ResourceHandler for Lds {
    fn stat_prefix(&self) -> String {
        "listener_manager.lds.".to_owned()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        let (opened, readable) = open_all::<Listener>(update.added, server);
        server.listeners.begin_update();
        // Removed ones first: a new listener may want the address of one that is gone.
        let removed = if readable || !update.full {
            update.removed
        } else {
            Vec::new()
        };
        for name in removed {
            if server.listeners.remove(&name, server) {
                tracing::info!("lds: remove listener '{name}'");
            }
        }
        let mut rejected = Vec::new();
        let mut seen = HashSet::new();
        for (resource, listener) in opened {
            if !seen.insert(resource.name.clone()) {
                let reason = format!("duplicate listener {} found", resource.name);
                server.listeners.note_refused("", &resource.any, &reason);
                rejected.push(Rejected {
                    reason,
                    name: resource.name,
                });
                continue;
            }
            let any = resource.any.clone();
            let listeners = &server.listeners;
            let applied =
                listener.and_then(|listener| listeners.add_or_update(listener, &resource.version, any, false, server));
            match applied {
                Ok(true) => tracing::info!("lds: add/update listener '{}'", resource.name),
                Ok(false) => tracing::debug!("lds: add/update listener '{}' skipped", resource.name),
                Err(error) => {
                    let refused = Rejected::new(resource.name, &error);
                    listeners.note_refused(&refused.name, &resource.any, &refused.reason);
                    rejected.push(refused);
                }
            }
        }
        server.listeners.end_update();
        self.ready.send_replace(true);
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        if !matches!(reason, FetchFailure::Connection(_)) {
            self.ready.send_replace(true);
        }
    }
}
