//! `dynamic_resources` of the bootstrap: what is subscribed at start, in Envoy's order.
//!
//! Primary clusters first, for the control plane is reached through one; then RTDS; then CDS and with it EDS; when all clusters
//! are initialised LDS and with it RDS. The server listens when the listeners of the first LDS answer are there.

use std::{rc::Rc, sync::Arc};

use xds_protos::envoy::config::bootstrap::v3::bootstrap::DynamicResources;

use super::{
    WatchGuard, load_stats,
    resources::{cds, lds, rtds, workloads},
    source::GrpcTarget,
};
use crate::{
    config::{BuildCx, ConfigResult, InitTarget},
    extensions::bootstrap::workload_discovery,
    server::{ServerContext, Worker},
};

/// The subscriptions of the bootstrap; they last as long as this is kept.
#[derive(Default)]
#[must_use = "dropping it ends the subscriptions"]
pub struct Subscriptions {
    rtds: Vec<WatchGuard>,
    cds: Option<WatchGuard>,
    lds: Option<WatchGuard>,
    workloads: Option<WatchGuard>,
}

/// Checks `dynamic_resources` and sets up ADS; call it before anything subscribes. The stream itself begins once the
/// primary clusters are there ([`start`]).
pub fn configure(server: &Arc<ServerContext>) -> ConfigResult<()> {
    load_target(server)?;
    let Some(dynamic) = server.bootstrap.dynamic_resources.clone() else {
        return check_workloads(server);
    };
    let mut cx = BuildCx::new(server);
    cx.field("dynamic_resources", |cx| {
        coverage!(cx, dynamic => DynamicResources {
            supported { lds_config, cds_config, ads_config }
            rejected {
                lds_resources_locator: "xdstp collections",
                cds_resources_locator: "xdstp collections",
            }
        });
        if let Some(ads) = ads_config {
            cx.field("ads_config", |cx| server.xds.configure_ads(ads, cx))?;
        }
        for (name, source) in [("cds_config", cds_config), ("lds_config", lds_config)] {
            if let Some(source) = source {
                cx.field(name, |cx| server.xds.check(&source, cx))?;
            }
        }
        Ok(())
    })?;
    check_workloads(server)
}

/// Where workloads come from, if workload discovery is on.
fn check_workloads(server: &Arc<ServerContext>) -> ConfigResult<()> {
    let Some(source) = workload_discovery::source(&server.bootstrap)? else {
        return Ok(());
    };
    let mut cx = BuildCx::new(server);
    cx.field("bootstrap_extensions", |cx| server.xds.check(&source, cx))
}

/// Where load reports go, if anywhere (`cluster_manager.load_stats_config`).
fn load_target(server: &Arc<ServerContext>) -> ConfigResult<Option<GrpcTarget>> {
    let manager = server.bootstrap.cluster_manager.as_ref();
    let Some(config) = manager.and_then(|m| m.load_stats_config.clone()) else {
        return Ok(None);
    };
    if config.grpc_services.is_empty() {
        // Envoy's validation takes it, and its server ends at once: load that is not reported is the lesser harm.
        tracing::warn!("cluster_manager.load_stats_config names no gRPC service: load is not reported");
        return Ok(None);
    }
    let mut cx = BuildCx::new(server);
    let build = |cx: &mut BuildCx<'_>| cx.field("load_stats_config", |cx| load_stats::configure(config, cx));
    cx.field("cluster_manager", build).map(Some)
}

/// Starts the client on the control thread and subscribes what the bootstrap says. Returns when the first answers
/// are there, or their timeouts passed: the server may listen then. Listeners of the answer may still be warming.
pub async fn start(worker: &Rc<Worker>) -> Subscriptions {
    let server = &worker.server;
    let mut subscriptions = Subscriptions::default();
    server.clusters.wait_primary().await;
    server.xds.start();
    // It was checked before.
    if let Ok(Some(target)) = load_target(server) {
        tokio::task::spawn_local(load_stats::run(worker.clone(), target));
    }
    // The runtime may decide how clusters are built.
    let layers = server.bootstrap.layered_runtime.iter().flat_map(|r| &r.layers);
    for (guard, target) in rtds::subscribe(layers, server) {
        subscriptions.rtds.push(guard);
        ready(target).await;
    }
    // As Envoy, once all layers have had their first answer.
    server.runtime.load();
    // It was checked before.
    if let Ok(Some(source)) = workload_discovery::source(&server.bootstrap) {
        subscriptions.workloads = Some(workloads::subscribe(&source, server));
    }
    let dynamic = server.bootstrap.dynamic_resources.as_ref();
    if let Some(source) = dynamic.and_then(|d| d.cds_config.as_ref()) {
        let (guard, target) = cds::subscribe(source, server);
        subscriptions.cds = Some(guard);
        ready(target).await;
    }
    server.clusters.wait_initialized().await;
    server.xds.begin_pausing();
    if let Some(source) = dynamic.and_then(|d| d.lds_config.as_ref()) {
        let (guard, target) = lds::subscribe(source, server);
        subscriptions.lds = Some(guard);
        ready(target).await;
    }
    subscriptions
}

async fn ready(mut target: InitTarget) {
    // An error means that the watch is gone, and nothing more to wait for.
    let _ = target.ready.wait_for(|ready| *ready).await;
}
