//! Starts whatever finds a cluster's endpoints, and says when it has found the first.

mod eds;
mod original_dst;

use std::sync::Arc;

use tokio::sync::oneshot;

use super::dns;
use crate::{
    config::InitTarget,
    server::ServerContext,
    upstream::{
        config::Discovery,
        dynamic_forward_proxy::{DynamicForwardProxy, Following},
        host_store::HostStore,
        stats::UpdateStats,
    },
    xds::WatchGuard,
};

/// Keeps discovery going; dropping it ends it.
pub enum Source {
    /// Nothing goes on.
    None,
    /// An EDS subscription.
    Eds { _guard: WatchGuard },
    /// A task that removes unused hosts until the sender is dropped.
    OriginalDst { _stop: oneshot::Sender<()> },
    /// A task that resolves names until the sender is dropped.
    Dns { _stop: oneshot::Sender<()> },
    /// The hosts follow a cache of names.
    DynamicForwardProxy { _following: Following },
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
        Discovery::OriginalDst(options) => {
            let stop = original_dst::start(options, store.cluster().clone(), server);
            (Source::OriginalDst { _stop: stop }, None)
        }
        // Its workers look for the members.
        Discovery::Aggregate(_) => (Source::None, None),
        Discovery::Eds(options) => {
            let (guard, target) = eds::start(&options, store, server);
            (Source::Eds { _guard: guard }, Some(target))
        }
        Discovery::DynamicForwardProxy(DynamicForwardProxy::Cached(hosts)) => {
            let _: crate::stats::Stats<UpdateStats> = info.scope.block();
            let _following = hosts.start(store.cluster(), server);
            (Source::DynamicForwardProxy { _following }, None)
        }
        Discovery::DynamicForwardProxy(DynamicForwardProxy::SubClusters(clusters)) => {
            let _: crate::stats::Stats<UpdateStats> = info.scope.block();
            clusters.start(server);
            (Source::None, None)
        }
        Discovery::StrictDns(options, targets, assignment) => {
            dns::start(dns::Resolving::new(store, options, targets, assignment, false), server)
        }
        Discovery::LogicalDns(options, targets, assignment) => {
            dns::start(dns::Resolving::new(store, options, targets, assignment, true), server)
        }
    }
}
