//! EDS: a subscription whose assignments go into the host store.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use xds_protos::envoy::config::endpoint::v3::ClusterLoadAssignment;

use crate::{
    config::{BuildCx, ConfigResult, InitTarget},
    server::ServerContext,
    upstream::{
        config::{Assignment, EdsOptions, from_assignment},
        host_store::HostStore,
    },
    xds::{Change, WatchGuard},
};

/// Subscribes. The target is ready with the first answer.
pub(super) fn start(eds: &EdsOptions, store: Arc<HostStore>, server: &Arc<ServerContext>) -> (WatchGuard, InitTarget) {
    let prefix = format!("cluster.{}.", store.cluster().info.observability_name);
    let mut endpoints = Endpoints { store, expiry: None };
    let apply = move |change: Change<'_, ClusterLoadAssignment>, server: &Arc<ServerContext>| match change {
        Change::Set { proto, .. } => endpoints.assign(proto, server),
        Change::Nothing => {
            endpoints.store.cluster().info.membership.local().update_empty.inc();
            Ok(())
        }
        // A removed assignment leaves the hosts as they are, as in Envoy: CDS removes clusters.
        Change::Removed => Ok(()),
    };
    server
        .xds
        .watch_one(server, "EDS cluster", &eds.service_name, &eds.source, prefix, apply)
}

/// The endpoints of one cluster.
struct Endpoints {
    store: Arc<HostStore>,
    /// Removes them when they become stale.
    expiry: Option<Expiry>,
}

/// A timer that ends with this.
struct Expiry(JoinHandle<()>);

impl Drop for Expiry {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Endpoints {
    fn assign(&mut self, proto: ClusterLoadAssignment, server: &Arc<ServerContext>) -> ConfigResult<()> {
        let mut cx = BuildCx::new(server);
        let assignment = from_assignment(proto, &mut cx)?;
        for ignored in &cx.ignored {
            tracing::debug!(field = %ignored.path, "field has no effect: {}", ignored.why);
        }
        self.expiry = assignment.stale_after.map(|after| self.expire(after, server));
        apply(&self.store, assignment, server);
        Ok(())
    }

    /// `endpoint_stale_after`: without another assignment until then, there are no endpoints.
    fn expire(&self, after: Duration, server: &Arc<ServerContext>) -> Expiry {
        let (store, server) = (self.store.clone(), server.clone());
        store
            .cluster()
            .info
            .membership
            .local()
            .assignment_timeout_received
            .inc();
        Expiry(tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            apply(&store, Assignment::default(), &server);
            store.cluster().info.membership.local().assignment_stale.inc();
        }))
    }
}

fn apply(store: &HostStore, assignment: Assignment, server: &Arc<ServerContext>) {
    let cluster = store.cluster();
    match store.apply(assignment, server).published {
        // The first endpoints come with their cluster.
        true if server.clusters.is_serving(cluster) => server.clusters.stats.local().cluster_updated.inc(),
        true => {}
        false => cluster.info.membership.local().update_no_rebuild.inc(),
    }
}
