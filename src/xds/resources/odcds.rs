//! On-demand CDS: a cluster that is asked for by name when a request first needs it.

use std::sync::Arc;

use xds_protos::envoy::config::{cluster::v3::Cluster, core::v3::ConfigSource};

use crate::{
    config::InitTarget,
    server::ServerContext,
    xds::{Change, WatchGuard},
};

/// Subscribes to one cluster. The target is ready when it came, or the `initial_fetch_timeout` passed; whether it is
/// there and warm, the cluster manager knows. Dropping the guard keeps the cluster.
pub fn subscribe(name: &str, source: &ConfigSource, server: &Arc<ServerContext>) -> (WatchGuard, InitTarget) {
    let cluster = name.to_owned();
    server.xds.watch_one::<Cluster>(
        server,
        "cluster",
        name,
        source,
        "cluster_manager.odcds.".to_owned(),
        move |change, server| match change {
            Change::Set { proto, resource } => server
                .clusters
                .add_or_update(proto, &resource.version, resource.any.clone(), server)
                .map(|_| ()),
            Change::Nothing => Ok(()),
            Change::Removed => {
                server.clusters.remove(&cluster, server);
                Ok(())
            }
        },
    )
}
