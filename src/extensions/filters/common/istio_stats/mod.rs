//! `stats.PluginConfig`: Istio's standard metrics, of requests and of connections.
//!
//! The filters `istio.stats` of both kinds ([HTTP](crate::extensions::filters::http::istio_stats),
//! [network](crate::extensions::filters::network::istio_stats)) say when; here is what: the [labels] of a request are
//! written into a key, and a worker's map leads from there to its [series].
//!
//! The statistics are named `istiocustom.istio_requests_total.reporter.source...`; Prometheus is shown
//! `istio_requests_total{reporter="source",...}`.

mod labels;
mod metric;
mod overrides;
mod series;

use std::{fmt::Write, rc::Rc, sync::Arc, time::Duration};

use xds_protos::stats::{PluginConfig as Proto, Reporter as ProtoReporter};

use self::{
    labels::{Own, Reporter, Sources, is_settled},
    overrides::{Overrides, Values},
};
pub use self::{
    metric::{Metric, Shape},
    series::Series,
};
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    http::{RequestHead, ResponseHead, StreamInfo, grpc, stream_info::Metadata},
    matching::tree::MatchCx,
    server::Worker,
    stats::{Gauge, Scope},
};

/// Prometheus is not shown this part of the names.
const NAMESPACE: &str = "istiocustom";

/// `tcp_reporting_duration`
const REPORTING: Duration = Duration::from_secs(5);

/// The configuration of either filter.
pub struct IstioStats {
    own: Own,
    /// `SERVER_GATEWAY`; otherwise it depends on the listener's direction.
    waypoint: bool,
    host_fallback: bool,
    /// How often connections and calls that go on are reported; none for only when they end.
    pub reporting: Option<Duration>,
    overrides: Option<Arc<Overrides>>,
    scope: Scope,
    _build: Gauge,
}

impl IstioStats {
    /// Reads the configuration.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let waypoint = proto.reporter() == ProtoReporter::ServerGateway;
        coverage!(cx, proto => Proto {
            supported { disable_host_header_fallback, tcp_reporting_duration, metrics, definitions, reporter }
            ignored {
                rotation_interval: "stats_eviction_interval of the bootstrap takes its place",
                graceful_deletion_interval: "stats_eviction_interval of the bootstrap takes its place",
            }
        });
        let _ = reporter;
        let overrides = Overrides::build(metrics, definitions, cx)?;
        let stats = &cx.server.stats;
        stats.register_namespace(NAMESPACE);
        let (scope, own) = (stats.root(), Own::new(&cx.server.node));
        let version = match own.istio_version.as_str() {
            "" => "unknown",
            version => version,
        };
        let build = format!("{NAMESPACE}.istio_build");
        let build = scope.gauge_tagged(&build, &[("component", "proxy"), ("tag", version)]);
        build.set(1);
        Ok(Arc::new(Self {
            own,
            waypoint,
            host_fallback: !disable_host_header_fallback,
            reporting: Some(tcp_reporting_duration.or_duration(REPORTING)).filter(|d| !d.is_zero()),
            overrides: overrides.map(Arc::new),
            scope,
            _build: build,
        }))
    }

    fn reporter(&self, info: &StreamInfo) -> Reporter {
        match self.waypoint {
            true => Reporter::Waypoint,
            false => Reporter::of(info.connection.direction),
        }
    }

    /// Whether the other end is known, or given up on.
    pub fn is_settled(&self, info: &StreamInfo) -> bool {
        is_settled(self.reporter(info), info)
    }

    fn evaluate(&self, cx: &MatchCx<'_>) -> Option<Values> {
        self.overrides.as_ref().map(|overrides| overrides.evaluate(cx))
    }

    /// The series of these labels: those of the ends, then what `rest` writes.
    fn find(
        &self,
        shape: Shape,
        (info, request, cluster): (&StreamInfo, Option<&RequestHead>, Option<&Metadata>),
        values: Option<&Values>,
        rest: impl FnOnce(&mut series::Key, &'static str),
    ) -> Rc<Series> {
        let sources = Sources {
            own: &self.own,
            reporter: self.reporter(info),
            info,
            request,
            cluster,
            host_fallback: self.host_fallback,
        };
        series::find(&self.scope, self.overrides.as_ref(), |key| {
            key.begin(shape, self.overrides.as_deref());
            let security = sources.write(key);
            rest(key, security);
            for text in values.into_iter().flat_map(|v| &v.texts) {
                key.value(text);
            }
        })
    }

    /// Counts a request that is over.
    pub fn request_ended(
        &self,
        info: &StreamInfo,
        request: &RequestHead,
        response: Option<&ResponseHead>,
        is_grpc: bool,
        cluster: Option<&Metadata>,
    ) {
        let values = self.evaluate(&MatchCx {
            request: Some(request),
            response,
            ..MatchCx::stream(info)
        });
        let series = self.find(
            Shape::Http,
            (info, Some(request), cluster),
            values.as_ref(),
            |key, security| {
                key.value(if is_grpc { "grpc" } else { "http" });
                key.value(info.response_code.as_ref().map_or("0", |code| code.as_str()));
                match grpc_status(info, response).filter(|_| is_grpc) {
                    Some(status) => write_number(key, status),
                    None => key.value(""),
                }
                write_flags(key, info);
                key.value(security);
            },
        );
        series.add(Metric::RequestsTotal, 1);
        if let Some(end) = info.end {
            let took = end.saturating_duration_since(info.start).as_millis();
            series.add(Metric::RequestDuration, u64::try_from(took).unwrap_or(u64::MAX));
        }
        let progress = &info.progress;
        let received = progress.meters.downstream_received.wire(progress.bytes_received.get());
        series.add(Metric::RequestBytes, received);
        let sent = progress.meters.downstream_sent.wire(progress.bytes_sent.get());
        series.add(Metric::ResponseBytes, sent);
        if let Some(values) = &values {
            series.add_custom(values);
        }
    }

    /// Where the messages of a call are counted.
    pub fn messages(&self, info: &StreamInfo, request: &RequestHead, cluster: Option<&Metadata>) -> Rc<Series> {
        let values = self.evaluate(&MatchCx::stream(info));
        self.find(
            Shape::Messages,
            (info, Some(request), cluster),
            values.as_ref(),
            |_, _| {},
        )
    }

    /// Where a connection is counted.
    pub fn connection(&self, info: &StreamInfo, cluster: Option<&Metadata>) -> CountedConnection {
        let values = self.evaluate(&MatchCx::stream(info));
        let series = self.find(Shape::Tcp, (info, None, cluster), values.as_ref(), |key, security| {
            key.value("tcp");
            write_flags(key, info);
            key.value(security);
        });
        CountedConnection {
            series,
            values,
            bytes: (0, 0),
        }
    }
}

/// `Cluster.metadata` of a stream's cluster: the service that was asked for.
pub fn metadata_of_cluster(info: &StreamInfo, worker: &Worker) -> Option<Arc<Metadata>> {
    let cluster = worker.clusters.get(info.upstream.cluster.as_ref()?)?;
    Some(cluster.info.metadata.clone())
}

/// A connection whose labels are known.
pub struct CountedConnection {
    series: Rc<Series>,
    values: Option<Values>,
    /// From the client and to it, as told so far.
    bytes: (u64, u64),
}

impl CountedConnection {
    /// It is open.
    pub fn opened(&self) {
        self.series.add(Metric::TcpOpened, 1);
    }

    /// So many bytes have come from the client and gone to it.
    pub fn moved(&mut self, bytes: (u64, u64)) {
        self.series = self.series.current();
        self.series.add(Metric::TcpSent, bytes.1.saturating_sub(self.bytes.1));
        self.series
            .add(Metric::TcpReceived, bytes.0.saturating_sub(self.bytes.0));
        self.bytes = bytes;
    }

    /// It is over.
    pub fn closed(&self) {
        let series = self.series.current();
        series.add(Metric::TcpClosed, 1);
        if let Some(values) = &self.values {
            series.add_custom(values);
        }
    }
}

impl Series {
    /// So many more messages came from the client and went to it.
    pub fn add_messages(series: &mut Rc<Self>, request: u64, response: u64) {
        *series = series.current();
        series.add(Metric::RequestMessages, request);
        series.add(Metric::ResponseMessages, response);
    }
}

fn write_flags(key: &mut series::Key, info: &StreamInfo) {
    match info.flags.is_empty() {
        true => key.value("-"),
        false => key.value(&info.flags.to_string()),
    }
}

fn write_number(key: &mut series::Key, number: u64) {
    let mut text = String::with_capacity(4);
    // Writing to a String cannot fail.
    let _ = write!(text, "{number}");
    key.value(&text);
}

/// From the trailers, else the headers, else what the HTTP status means in gRPC.
fn grpc_status(info: &StreamInfo, response: Option<&ResponseHead>) -> Option<u64> {
    let of = |headers: &http::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    let told = info.response_trailers.as_ref().and_then(of);
    let told = told.or_else(|| of(&response?.headers));
    told.or_else(|| Some(u64::from(grpc::status_of_http(info.response_code?))))
}

#[cfg(test)]
mod tests;
