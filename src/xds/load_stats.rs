//! The client of a load reporting service (`cluster_manager.load_stats_config`): says how much each cluster that the
//! service asks for has to do, as often as it asks for it.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use xds_protos::envoy::{
    config::core::v3::ApiConfigSource,
    service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
};

use super::{
    source::{self, GrpcTarget, Source},
    transport::grpc::{Event, Link},
};
use crate::{
    config::{BuildCx, ConfigResult, duration},
    server::Worker,
    stats::Stats,
    stats_block,
    upstream::LoadReports,
};

const METHOD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
/// Between a stream that ended and the next, as in Envoy.
const RETRY_DELAY: Duration = Duration::from_secs(5);

stats_block! {
    /// `load_reporter.`
    pub struct LoadReporterStats {
        counter requests, "Messages of the service";
        counter responses, "Reports sent";
        counter errors, "Streams that failed";
        counter retries, "Streams opened again";
    }
}

/// Reads where reports go.
pub(super) fn configure(config: ApiConfigSource, cx: &mut BuildCx<'_>) -> ConfigResult<GrpcTarget> {
    match source::api(config, cx)? {
        Source::Grpc(source) => Ok(source.target),
        _ => Err(cx.error_at("api_type", "load is reported over gRPC only")),
    }
}

/// Reports until it is dropped.
pub(super) async fn run(worker: Rc<Worker>, target: GrpcTarget) {
    let stats: Stats<LoadReporterStats> = worker.server.stats.scope("load_reporter.").block();
    let mut reporter = Reporter {
        worker,
        stats,
        reports: LoadReports::default(),
        asked: None,
    };
    loop {
        reporter.stream(&target).await;
        tokio::time::sleep(RETRY_DELAY).await;
        reporter.stats.local().retries.inc();
    }
}

struct Reporter {
    worker: Rc<Worker>,
    stats: Stats<LoadReporterStats>,
    reports: LoadReports,
    /// What the service asked for last; it stays so over streams.
    asked: Option<LoadStatsResponse>,
}

impl Reporter {
    /// One stream, until it ends.
    async fn stream(&mut self, target: &GrpcTarget) {
        let mut link = Link::<LoadStatsRequest, LoadStatsResponse>::open(&self.worker, target, METHOD);
        self.report(&link);
        let mut due: Option<tokio::time::Instant> = self.asked.is_some().then(|| self.next_period());
        loop {
            let event = match due {
                Some(at) => tokio::time::timeout_at(at, link.next()).await.ok(),
                None => Some(link.next().await),
            };
            match event {
                None => {
                    self.report(&link);
                    due = Some(self.next_period());
                }
                Some(Event::Message(message)) => {
                    self.asked = Some(*message);
                    due = Some(self.next_period());
                    self.stats.local().requests.inc();
                }
                Some(Event::Closed(status)) => {
                    tracing::debug!(
                        cluster = target.cluster,
                        "load report stream closed: {}",
                        status.message()
                    );
                    self.stats.local().errors.inc();
                    return;
                }
                Some(Event::Due) => {}
            }
        }
    }

    fn report(&mut self, link: &Link<LoadStatsRequest, LoadStatsResponse>) {
        let Link::Open { requests, .. } = link else {
            return;
        };
        self.send(requests);
    }

    fn send(&mut self, requests: &mpsc::UnboundedSender<LoadStatsRequest>) {
        let server = &self.worker.server;
        let mut node = server.node.as_ref().clone();
        node.client_features.push("envoy.lrs.supports_send_all_clusters".into());
        let cluster_stats = self.reports.report(|name| server.clusters.get(name), Instant::now());
        let report = LoadStatsRequest {
            node: Some(node),
            cluster_stats,
        };
        // A closed stream says so when it is read.
        let _ = requests.send(report);
        self.stats.local().responses.inc();
    }

    /// Begins a period for what was asked for last, and tells when it ends.
    fn next_period(&mut self) -> tokio::time::Instant {
        let Some(asked) = &self.asked else {
            return tokio::time::Instant::now() + RETRY_DELAY;
        };
        let server = &self.worker.server;
        let names: Vec<String> = match asked.send_all_clusters {
            true => server
                .clusters
                .active()
                .iter()
                .map(|c| c.info.name.to_string())
                .collect(),
            false => asked.clusters.clone(),
        };
        let find = |name: &str| server.clusters.get(name);
        self.reports
            .track(names, asked.report_endpoint_granularity, find, Instant::now());
        let interval = asked.load_reporting_interval.as_ref().map_or(Duration::ZERO, duration);
        // A service that asks for no time between reports gets a thousand a second at most.
        tokio::time::Instant::now() + interval.max(Duration::from_millis(1))
    }
}
