//! Starts whatever finds a cluster's endpoints, and says when it has found the first.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use xds_protos::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::dns;
use crate::{
    config::{BuildCx, InitTarget},
    server::ServerContext,
    upstream::{
        config::{Discovery, from_assignment},
        host_store::HostStore,
        stats::UpdateStats,
    },
    xds::{Change, WatchGuard},
};

/// Keeps discovery going; dropping it ends it.
pub enum Source {
    /// Nothing goes on.
    None,
    /// An EDS subscription.
    Eds { _guard: WatchGuard },
    /// A task that resolves names until the sender is dropped.
    Dns { _stop: oneshot::Sender<()> },
}

/// Whether the endpoints come through the xDS client, which starts when all other clusters are initialised. Files
/// too: a cluster of the control plane itself may use them, and is then retried until it is warm.
pub fn is_secondary(discovery: &Discovery) -> bool {
    matches!(discovery, Discovery::Eds(_))
}

/// Starts it. The target is ready with the first answer.
pub fn start(discovery: Discovery, store: Arc<HostStore>, server: &Arc<ServerContext>) -> (Source, Option<InitTarget>) {
    let info = store.cluster().info.clone();
    match discovery {
        Discovery::Static(assignment) => {
            let _: crate::stats::Stats<UpdateStats> = info.scope.block();
            store.apply(assignment, server);
            (Source::None, None)
        }
        Discovery::OriginalDst(_) => (Source::None, None),
        Discovery::Eds(eds) => {
            let prefix = format!("cluster.{}.", info.observability_name);
            let (guard, target) = server.xds.watch_one::<ClusterLoadAssignment>(
                server,
                "EDS cluster",
                &eds.service_name,
                &eds.source,
                prefix,
                move |change, server| {
                    // A removed assignment leaves the hosts as they are, as in Envoy: CDS removes clusters.
                    if let Change::Set { proto, .. } = change {
                        let mut cx = BuildCx::new(server);
                        let assignment = from_assignment(proto, &mut cx)?;
                        for ignored in &cx.ignored {
                            tracing::debug!(field = %ignored.path, "field has no effect: {}", ignored.why);
                        }
                        match store.apply(assignment, server).published {
                            true => server.clusters.stats.local().cluster_updated.inc(),
                            false => store.cluster().info.membership.local().update_no_rebuild.inc(),
                        }
                    }
                    Ok(())
                },
            );
            (Source::Eds { _guard: guard }, Some(target))
        }
        Discovery::StrictDns(options, targets, assignment) => {
            start_dns(dns::Resolving::new(store, options, targets, assignment, false), server)
        }
        Discovery::LogicalDns(options, targets, assignment) => {
            start_dns(dns::Resolving::new(store, options, targets, assignment, true), server)
        }
    }
}

fn start_dns(resolving: dns::Resolving, server: &Arc<ServerContext>) -> (Source, Option<InitTarget>) {
    let (stop, stopped) = oneshot::channel();
    let (ready, receiver) = watch::channel(false);
    let target = InitTarget {
        name: format!("Cluster {}", resolving.name()),
        ready: receiver,
    };
    let server = server.clone();
    server.clone().mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = stopped => {}
                () = resolving.run(ready, server) => {}
            }
        });
    });
    (Source::Dns { _stop: stop }, Some(target))
}
