//! EDS: a subscription whose assignments go into the host store.

use std::sync::Arc;

use xds_protos::envoy::config::endpoint::v3::ClusterLoadAssignment;

use crate::{
    config::{BuildCx, ConfigResult, InitTarget},
    server::ServerContext,
    upstream::{
        config::{EdsOptions, from_assignment},
        host_store::HostStore,
    },
    xds::{Change, WatchGuard},
};

/// Subscribes. The target is ready with the first answer.
pub(super) fn start(eds: &EdsOptions, store: Arc<HostStore>, server: &Arc<ServerContext>) -> (WatchGuard, InitTarget) {
    let prefix = format!("cluster.{}.", store.cluster().info.observability_name);
    let apply = move |change: Change<'_, ClusterLoadAssignment>, server: &Arc<ServerContext>| match change {
        Change::Set { proto, .. } => assign(proto, &store, server),
        // A removed assignment leaves the hosts as they are, as in Envoy: CDS removes clusters.
        Change::Removed => Ok(()),
    };
    server
        .xds
        .watch_one(server, "EDS cluster", &eds.service_name, &eds.source, prefix, apply)
}

fn assign(proto: ClusterLoadAssignment, store: &HostStore, server: &Arc<ServerContext>) -> ConfigResult<()> {
    let mut cx = BuildCx::new(server);
    let assignment = from_assignment(proto, &mut cx)?;
    for ignored in &cx.ignored {
        tracing::debug!(field = %ignored.path, "field has no effect: {}", ignored.why);
    }
    match store.apply(assignment, server).published {
        true => server.clusters.stats.local().cluster_updated.inc(),
        false => store.cluster().info.membership.local().update_no_rebuild.inc(),
    }
    Ok(())
}
