//! What a worker does about a cluster that it does not have: asks for it and waits.

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use xds_protos::{
    envoy::config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier},
    google::protobuf as pb,
};

use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    server::Worker,
};

/// Where clusters are asked for by name (`odcds`, `odcds_config`).
#[derive(Debug)]
pub struct OnDemandClusters {
    source: ConfigSource,
    timeout: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demanded {
    /// The cluster is there.
    Found,
    /// The control plane has none of this name.
    Missing,
    /// Nothing came in time.
    TimedOut,
}

impl OnDemandClusters {
    /// Reads the source. One that cannot be watched is an error, but ADS may be missing, as in Envoy: then nothing
    /// ever comes.
    pub fn build(
        source: Option<ConfigSource>,
        locator: &str,
        timeout: Option<pb::Duration>,
        default_timeout: Duration,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        if !locator.is_empty() {
            return Err(match locator.split_once(':') {
                Some(("xdstp" | "http" | "file", _)) => {
                    cx.error_at("resources_locator", "not supported: xdstp collections")
                }
                _ => cx.error(format!("{locator} does not have a xdstp:, http: or file: scheme")),
            });
        }
        let source = source.unwrap_or_default();
        match &source.config_source_specifier {
            None => {
                return Err(cx.error("Missing config source specifier in envoy::config::core::v3::ConfigSource"));
            }
            Some(ConfigSourceSpecifier::Ads(_)) => {}
            Some(_) => cx.field("source", |cx| cx.server.xds.check(&source, cx))?,
        }
        Ok(Self {
            source,
            timeout: timeout.or_duration(default_timeout),
        })
    }

    /// Asks for a cluster that this worker does not have, and waits until it does.
    pub async fn demand(self: &Arc<Self>, name: &str, worker: &Rc<Worker>) -> Demanded {
        let arrival = worker.clusters.arrival(name);
        let (shared, name) = (self.clone(), Arc::<str>::from(name));
        worker.server.mailboxes.run_on_control(move |control| {
            let server = &control.server;
            server.clusters.demand(&name, &shared.source, server);
        });
        match tokio::time::timeout(self.timeout, arrival).await {
            Ok(Ok(true)) => Demanded::Found,
            Ok(_) => Demanded::Missing,
            Err(_) => Demanded::TimedOut,
        }
    }
}

/// Those who wait for one cluster.
pub(super) type Waiting = Vec<oneshot::Sender<bool>>;
