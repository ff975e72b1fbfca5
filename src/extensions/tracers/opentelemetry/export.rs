//! Batches of spans as OTLP requests.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, uri::PathAndQuery};
use tonic::{Status as GrpcStatus, client::Grpc, metadata::AsciiMetadataValue};
use tonic_prost::ProstCodec;
use xds_protos::{
    opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value},
    prost::Message,
};

use super::{
    OpenTelemetryStats,
    proto::{
        Event, ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope, ResourceSpans, ScopeSpans,
        Span, Status,
    },
    resource::{Resource, version},
};
use crate::{
    extensions::{grpc_service::Target, tracers::http_collector::HttpCollector},
    server::Worker,
    stats::Stats,
    tracing::{Export, Kind, SpanData},
};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Calls of all workers that wait for a slow collector; batches beyond are dropped.
const CALLS: u32 = 64;

/// How long a call may take when the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How the collector is reached.
pub(super) enum Transport {
    Grpc(Target),
    Http(HttpCollector),
}

/// Sends batches.
pub(super) struct Exporter {
    transport: Transport,
    resource: Resource,
    scope: bool,
    stats: Stats<OpenTelemetryStats>,
    calls: AtomicU32,
}

impl Exporter {
    pub(super) fn new(transport: Transport, resource: Resource, scope: bool, stats: Stats<OpenTelemetryStats>) -> Self {
        Self {
            transport,
            resource,
            scope,
            stats,
            calls: AtomicU32::new(0),
        }
    }

    fn message(&self, spans: Vec<SpanData>) -> ExportTraceServiceRequest {
        let scope = self.scope.then(|| InstrumentationScope {
            name: "envoy".to_owned(),
            version: version(),
        });
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.to_proto()),
                scope_spans: vec![ScopeSpans {
                    scope,
                    spans: spans.into_iter().map(of).collect(),
                }],
            }],
        }
    }

    async fn send_now(&self, worker: Rc<Worker>, message: ExportTraceServiceRequest) {
        let sent = match &self.transport {
            Transport::Grpc(target) => {
                let call = call(target, worker, message);
                match tokio::time::timeout(target.timeout.unwrap_or(TIMEOUT), call).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(status)) => Err(status.message().to_owned()),
                    Err(_) => Err("no answer in time".to_owned()),
                }
            }
            Transport::Http(collector) => {
                let body = message.encode_to_vec();
                let agent = HeaderValue::try_from(user_agent()).ok();
                let timeout = Some(collector.timeout.unwrap_or(TIMEOUT));
                let answer = collector
                    .send(worker, "application/x-protobuf", agent, timeout, body)
                    .await;
                answer.map(|_| ()).map_err(|e| e.to_string())
            }
        };
        if let Err(error) = sent {
            tracing::debug!(error, "spans could not be exported");
        }
    }
}

impl Export for Exporter {
    fn timer_flushed(&self) {
        self.stats.local().timer_flushed.inc();
    }

    fn send(self: Arc<Self>, worker: &Rc<Worker>, spans: Vec<SpanData>) {
        let stats = self.stats.local();
        let count = spans.len() as u64;
        if self.calls.fetch_add(1, Relaxed) >= CALLS {
            self.calls.fetch_sub(1, Relaxed);
            stats.spans_dropped.add(count);
            return;
        }
        stats.spans_sent.add(count);
        let message = self.message(spans);
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            self.send_now(worker, message).await;
            self.calls.fetch_sub(1, Relaxed);
        });
    }
}

async fn call(target: &Target, worker: Rc<Worker>, message: ExportTraceServiceRequest) -> Result<(), GrpcStatus> {
    let mut client = Grpc::new(target.channel(worker));
    client
        .ready()
        .await
        .map_err(|e| GrpcStatus::unavailable(e.to_string()))?;
    let codec = ProstCodec::<ExportTraceServiceRequest, ExportTraceServiceResponse>::default();
    let mut request = target.request(message, None);
    if let Ok(agent) = AsciiMetadataValue::try_from(user_agent()) {
        request.metadata_mut().insert("user-agent", agent);
    }
    client.unary(request, PathAndQuery::from_static(METHOD), codec).await?;
    Ok(())
}

fn user_agent() -> String {
    format!("OTel-OTLP-Exporter-Envoy/{}", version())
}

/// A span as OTLP has it.
pub(super) fn of(span: SpanData) -> Span {
    let context = span.context;
    let tag = |name: &str| span.tags.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let status = status(
        span.kind,
        tag(crate::tracing::tags::GRPC_STATUS),
        tag(crate::tracing::tags::HTTP_STATUS),
    );
    Span {
        trace_id: context.trace_id.to_be_bytes().to_vec(),
        span_id: context.span_id.to_be_bytes().to_vec(),
        trace_state: context.state,
        parent_span_id: context.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name: span.name,
        kind: match span.kind {
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span
            .tags
            .into_iter()
            .map(|(key, value)| text(key.into_owned(), value))
            .collect(),
        events: span
            .events
            .into_iter()
            .map(|(at, name)| Event {
                time_unix_nano: nanos(at),
                name: name.to_owned(),
            })
            .collect(),
        status,
        // It is sampled; whether the parent is remote is known.
        flags: 0x101 | if context.remote { 0x200 } else { 0 },
    }
}

/// By the conventions for gRPC and for HTTP: what is the callee's fault, or this caller's problem.
fn status(kind: Kind, grpc: Option<&str>, http: Option<&str>) -> Option<Status> {
    let error = Status { code: 2 };
    if let Some(code) = grpc {
        let failed = match (kind, code.parse::<u32>()) {
            (_, Err(_)) => false,
            (Kind::Client, Ok(code)) => code != 0,
            (Kind::Server, Ok(code)) => matches!(code, 2 | 4 | 12 | 13 | 14 | 15),
        };
        return Some(if failed { error } else { Status { code: 0 } });
    }
    let code: u16 = http?.parse().ok()?;
    (code >= 500 || code >= 400 && kind == Kind::Client).then_some(error)
}

/// An attribute that is a text.
pub(super) fn text(key: String, value: String) -> KeyValue {
    KeyValue {
        key,
        value: Some(AnyValue {
            value: Some(Value::StringValue(value)),
        }),
        ..KeyValue::default()
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
