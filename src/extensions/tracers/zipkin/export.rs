//! Batches of spans as requests to the collector.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{ZipkinStats, json, proto};
use crate::{
    config::BuildCx,
    extensions::tracers::http_collector::HttpCollector,
    net::local_address,
    runtime::Key,
    server::Worker,
    stats::Stats,
    tracing::{Export, Kind, SpanData},
    upstream::client::ChannelError,
};

/// `collector_endpoint_version`
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    /// `HTTP_JSON`
    Json,
    /// `HTTP_PROTO`
    Proto,
}

/// Who reports.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Cluster of this node.
    pub(super) service: String,
    /// This machine's address.
    pub(super) address: IpAddr,
    /// `shared_span_context`
    pub(super) shared: bool,
}

/// Sends batches.
pub(super) struct Exporter {
    collector: HttpCollector,
    format: Format,
    endpoint: Endpoint,
    stats: Stats<ZipkinStats>,
    /// `tracing.zipkin.request_timeout`, in milliseconds; 5 s.
    timeout: Key,
}

impl Exporter {
    pub(super) fn new(
        collector: HttpCollector,
        format: Format,
        shared: bool,
        stats: Stats<ZipkinStats>,
        cx: &BuildCx<'_>,
    ) -> Self {
        Self {
            collector,
            format,
            endpoint: Endpoint {
                service: cx.server.node.cluster.clone(),
                address: local_address(),
                shared,
            },
            stats,
            timeout: cx.server.runtime.key("tracing.zipkin.request_timeout"),
        }
    }
}

impl Export for Exporter {
    fn timer_flushed(&self) {
        self.stats.local().timer_flushed.inc();
    }

    fn send(self: Arc<Self>, worker: &Rc<Worker>, mut spans: Vec<SpanData>) {
        let stats = self.stats.local();
        stats.spans_sent.add(spans.len() as u64);
        for span in &mut spans {
            span.tags.retain(|(_, value)| !value.is_empty());
            // The moment that the other side's annotation stands for.
            span.events
                .push((span.end, if span.kind == Kind::Server { "ss" } else { "cr" }));
        }
        let (kind, body) = match self.format {
            Format::Json => ("application/json", json::encode(&self.endpoint, &spans)),
            Format::Proto => ("application/x-protobuf", proto::encode(&self.endpoint, spans)),
        };
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            let timeout = Duration::from_millis(self.timeout.integer(5000));
            let timeout = Some(timeout).filter(|t| !t.is_zero());
            let answer = self.collector.send(worker, kind, None, timeout, body).await;
            let stats = self.stats.local();
            match answer {
                Ok(http::StatusCode::ACCEPTED) => stats.reports_sent.inc(),
                Ok(_) => stats.reports_dropped.inc(),
                Err(ChannelError::UnknownCluster(_)) => stats.reports_skipped_no_cluster.inc(),
                // As in Envoy, where the answer to a failure is the router's own.
                Err(ChannelError::NoHealthyUpstream(_) | ChannelError::Upstream(_)) => stats.reports_dropped.inc(),
                Err(ChannelError::WrongThread) => stats.reports_failed.inc(),
            }
        });
    }
}

/// Microseconds since the epoch.
pub(super) fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// How long a span was, in microseconds.
pub(super) fn duration(span: &SpanData) -> u64 {
    micros(span.end).saturating_sub(micros(span.start))
}
