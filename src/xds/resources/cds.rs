//! CDS: clusters, into the cluster manager.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::watch;
use xds_protos::envoy::config::{cluster::v3::Cluster, core::v3::ConfigSource};

use crate::{
    config::InitTarget,
    server::ServerContext,
    stats::Stats,
    stats_block,
    xds::{FetchFailure, Names, Rejected, ResourceHandler, Update, WatchGuard, open::open_all, stats::unix_millis},
};

stats_block! {
    /// What CDS counts beside its subscription (`cluster_manager.cds.`).
    pub struct CdsStats {
        counter config_reload, "Updates that added or changed clusters";
        gauge(never_import) config_reload_time_ms, "When the clusters changed last, in milliseconds of Unix time";
    }
}

/// Subscribes to all clusters (`dynamic_resources.cds_config`). The target is ready after the first answer; the
/// clusters in it may still be warming then.
pub fn subscribe(source: &ConfigSource, server: &Arc<ServerContext>) -> (WatchGuard, InitTarget) {
    let (ready, receiver) = watch::channel(false);
    let target = InitTarget {
        name: "CDS".to_owned(),
        ready: receiver,
    };
    let stats = server.stats.scope(PREFIX).block();
    let handler = Box::new(Cds { ready, stats });
    let type_url = xds_protos::type_url::<Cluster>();
    (
        server.xds.watch(server, &type_url, source, Names::Wildcard, handler),
        target,
    )
}

const PREFIX: &str = "cluster_manager.cds.";

struct Cds {
    ready: watch::Sender<bool>,
    stats: Stats<CdsStats>,
}

impl ResourceHandler for Cds {
    fn stat_prefix(&self) -> String {
        PREFIX.to_owned()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        let mut seen = HashSet::new();
        let (mut added, mut skipped, mut gone) = (0, 0, 0);
        let (opened, readable) = open_all::<Cluster>(update.added, server);
        for (resource, cluster) in opened {
            if !seen.insert(resource.name.clone()) {
                // The first of them stands.
                rejected.push(Rejected {
                    reason: format!("duplicate cluster {} found", resource.name),
                    name: resource.name,
                });
                continue;
            }
            let applied = cluster.and_then(|cluster| {
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
        let removed = if readable || !update.full {
            update.removed
        } else {
            Vec::new()
        };
        for name in removed {
            if server.clusters.remove(&name, server) {
                gone += 1;
            }
        }
        tracing::info!("cds: added/updated {added} cluster(s), skipped {skipped} unmodified, removed {gone}");
        // Removals alone are no reload to Envoy, nor is an answer with anything bad.
        if added > 0 && rejected.is_empty() {
            let stats = self.stats.local();
            stats.config_reload.inc();
            stats.config_reload_time_ms.set(unix_millis());
        }
        self.ready.send_replace(true);
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        if !matches!(reason, FetchFailure::Connection(_)) {
            self.ready.send_replace(true);
        }
    }
}
