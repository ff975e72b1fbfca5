//! CDS: clusters, into the cluster manager.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::watch;
use xds_protos::envoy::config::{cluster::v3::Cluster, core::v3::ConfigSource};

use crate::{
    config::{BuildCx, InitTarget},
    server::ServerContext,
    xds::{FetchFailure, Names, Rejected, ResourceHandler, Update, WatchGuard, open},
};

/// Subscribes to all clusters (`dynamic_resources.cds_config`). The target is ready after the first answer; the
/// clusters in it may still be warming then.
pub fn subscribe(source: &ConfigSource, server: &Arc<ServerContext>) -> (WatchGuard, InitTarget) {
    let (ready, receiver) = watch::channel(false);
    let target = InitTarget {
        name: "CDS".to_owned(),
        ready: receiver,
    };
    let handler = Box::new(Cds { ready });
    let type_url = xds_protos::type_url::<Cluster>();
    (
        server.xds.watch(server, &type_url, source, Names::Wildcard, handler),
        target,
    )
}

struct Cds {
    ready: watch::Sender<bool>,
}

impl ResourceHandler for Cds {
    fn stat_prefix(&self) -> String {
        "cluster_manager.cds.".to_owned()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        let mut seen = HashSet::new();
        let (mut added, mut skipped, mut gone) = (0, 0, 0);
        for resource in update.added {
            if !seen.insert(resource.name.clone()) {
                // The first of them stands.
                rejected.push(Rejected {
                    reason: format!("duplicate cluster {} found", resource.name),
                    name: resource.name,
                });
                continue;
            }
            let applied = open::<Cluster>(&resource.any, &BuildCx::new(server)).and_then(|cluster| {
                server
                    .clusters
                    .add_or_update(cluster, &resource.version, resource.any, server)
            });
            match applied {
                Ok(true) => added += 1,
                Ok(false) => skipped += 1,
                Err(error) => rejected.push(Rejected::new(resource.name, &error)),
            }
        }
        for name in update.removed {
            if server.clusters.remove(&name, server) {
                gone += 1;
            }
        }
        tracing::info!("cds: added/updated {added} cluster(s), skipped {skipped} unmodified, removed {gone}");
        self.ready.send_replace(true);
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        if !matches!(reason, FetchFailure::Connection(_)) {
            self.ready.send_replace(true);
        }
    }
}
