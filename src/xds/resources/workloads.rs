//! Workload discovery: Istio's workloads, by which telemetry names the peers of a request.

use std::sync::Arc;

use xds_protos::{envoy::config::core::v3::ConfigSource, istio::workload::Workload, prost::Message};

use crate::{
    config::{BuildCx, unpack},
    extensions::common::workload::WorkloadIndex,
    server::ServerContext,
    stats::Stats,
    stats_block,
    xds::{FetchFailure, Names, Rejected, ResourceHandler, Update, WatchGuard},
};

stats_block! {
    /// `workload_discovery.*`, beside what its subscription counts.
    struct WorkloadStats {
        gauge total, "Addresses that are known";
    }
}

/// Subscribes to all workloads. Nobody waits for them: without, a peer has no name.
pub fn subscribe(source: &ConfigSource, server: &Arc<ServerContext>) -> WatchGuard {
    let handler = Workloads {
        index: WorkloadIndex::default(),
        stats: server.stats.scope("workload_discovery.").block(),
    };
    server.xds.watch(
        server,
        &xds_protos::type_url::<Workload>(),
        source,
        Names::Wildcard,
        Box::new(handler),
    )
}

/// The name of a workload that came without one: its `uid`.
pub(in crate::xds) fn name(bytes: &[u8]) -> Option<String> {
    Workload::decode(bytes).ok().map(|workload| workload.uid)
}

struct Workloads {
    index: WorkloadIndex,
    stats: Stats<WorkloadStats>,
}

impl ResourceHandler for Workloads {
    fn stat_prefix(&self) -> String {
        "workload_discovery.".to_owned()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        let mut set = Vec::with_capacity(update.added.len());
        for resource in update.added {
            // Only what labels are made of is read; the rest of a workload is for other proxies.
            match unpack::<Workload>(&resource.any, &BuildCx::new(server)) {
                Ok(workload) => set.push((resource.name, workload)),
                Err(error) => rejected.push(Rejected::new(resource.name, &error)),
            }
        }
        // What cannot be read as a whole does not tell what is gone.
        let all = update.full && rejected.is_empty();
        self.index.apply(set, &update.removed, all, &server.workloads);
        self.stats.local().total.set(server.workloads.total() as u64);
        rejected
    }

    fn failed(&mut self, _: FetchFailure) {}
}
