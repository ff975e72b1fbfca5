//! `envoy.tracers.zipkin`: spans to a Zipkin collector over HTTP; B3 headers between hops.

mod b3;
mod export;
mod json;
mod proto;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use http::HeaderMap;
use xds_protos::envoy::config::trace::v3::{
    ZipkinConfig as Proto,
    zipkin_config::{CollectorEndpointVersion, TraceContextOption},
};

use super::{
    http_collector::HttpCollector,
    w3c::{self, Parent},
};
use crate::{
    config::{BuildCx, ConfigResult},
    stats::Stats,
    stats_block,
    tracing::{Batching, Context, Direction, Kind, Relation, Reporter, Root, SpanData, Tracer, TracerFactory},
};
use b3::Incoming;
use export::{Exporter, Format};

/// Finished spans of a worker that wait; beyond, they are dropped.
const MOST_SPANS: usize = 1024;

stats_block! {
    /// `tracing.zipkin.*`
    pub struct ZipkinStats {
        counter spans_sent, "Spans handed to the collector";
        counter timer_flushed, "How often the flush timer ran out";
        counter reports_skipped_no_cluster, "Batches for which there was no cluster";
        counter reports_sent, "Batches that were taken";
        counter reports_dropped, "Batches that the collector did not take";
        counter reports_failed, "Batches that the collector did not answer";
    }
}

/// The extension.
pub struct Factory;

impl TracerFactory for Factory {
    const NAME: &'static str = "envoy.tracers.zipkin";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn Tracer>> {
        coverage!(cx, proto => Proto {
            supported {
                collector_cluster, collector_endpoint, trace_id_128bit, shared_span_context,
                collector_endpoint_version, collector_hostname, split_spans_for_request, trace_context_option,
                collector_service, timestamp_trace_ids,
            }
        });
        let collector = match collector_service {
            Some(service) => cx.field("collector_service", |cx| HttpCollector::build(service, cx))?,
            None if collector_cluster.is_empty() || collector_endpoint.is_empty() => {
                return Err(cx.error(
                    "collector_cluster and collector_endpoint must be specified when not using collector_service",
                ));
            }
            None => HttpCollector {
                host: match collector_hostname.as_str() {
                    "" => collector_cluster.clone(),
                    _ => collector_hostname,
                },
                cluster: collector_cluster.into(),
                path: collector_endpoint,
                headers: Vec::new(),
                timeout: None,
            },
        };
        if !cx.server.clusters.contains(&collector.cluster) {
            let cluster = &collector.cluster;
            return Err(cx.error(format!("envoy.tracers.zipkin: unknown cluster '{cluster}'")));
        }
        let format = match CollectorEndpointVersion::try_from(collector_endpoint_version) {
            Ok(CollectorEndpointVersion::HttpJson) => Format::Json,
            Ok(CollectorEndpointVersion::HttpProto) => Format::Proto,
            Ok(CollectorEndpointVersion::Grpc) => {
                return Err(cx.error_at("collector_endpoint_version", "not supported: gRPC"));
            }
            Ok(CollectorEndpointVersion::DeprecatedAndUnavailableDoNotUse) | Err(_) => {
                return Err(cx.error(
                    "hidden_envoy_deprecated_HTTP_JSON_V1 has been deprecated. Please use a non-default \
                     envoy::config::trace::v3::ZipkinConfig::CollectorEndpointVersion value.",
                ));
            }
        };
        let shared = shared_span_context.is_none_or(|v| v.value);
        let stats: Stats<ZipkinStats> = cx.server.stats.scope("tracing.zipkin.").block();
        let exporter = Exporter::new(collector, format, shared, stats, cx);
        let batching = Batching::new("tracing.zipkin.", cx);
        Ok(Arc::new(Zipkin {
            wide: trace_id_128bit,
            timestamps: timestamp_trace_ids,
            shared,
            split: split_spans_for_request,
            w3c: trace_context_option == TraceContextOption::UseB3WithW3cPropagation as i32,
            reporter: Reporter::start(Arc::new(exporter), batching, MOST_SPANS, cx),
        }))
    }
}

struct Zipkin {
    /// `trace_id_128bit`
    wide: bool,
    /// `timestamp_trace_ids`: ids of 128 bits begin with the time.
    timestamps: bool,
    /// `shared_span_context`: both sides of a call are one span.
    shared: bool,
    /// `split_spans_for_request`
    split: bool,
    /// `USE_B3_WITH_W3C_PROPAGATION`
    w3c: bool,
    reporter: Reporter,
}

impl Zipkin {
    fn kind(&self, relation: Relation, of_attempt: bool) -> Kind {
        let client = match self.split || relation.independent {
            true => of_attempt,
            false => relation.direction == Direction::Egress,
        };
        if client { Kind::Client } else { Kind::Server }
    }

    /// A span after one that is known: below it, or the other side of it.
    fn after(&self, previous: &Context, kind: Kind) -> Context {
        if kind == Kind::Server && self.shared {
            return previous.clone();
        }
        Context {
            span_id: fastrand::u64(1..),
            parent: Some(previous.span_id),
            ..previous.clone()
        }
    }
}

impl Tracer for Zipkin {
    fn start(&self, root: &Root<'_>) -> Option<SpanData> {
        let headers = &root.head.headers;
        let mut incoming = b3::extract(headers);
        if let (Incoming::None { sampled: None, .. }, true) = (&incoming, self.w3c)
            && let Parent::Known(context) = w3c::extract(headers)
        {
            incoming = Incoming::Known { context, sampled: true };
        }
        let kind = self.kind(root.relation, false);
        let context = match incoming {
            Incoming::Malformed => return None,
            Incoming::Known { mut context, sampled } => {
                if !sampled {
                    context.sampled = root.traced;
                }
                self.after(&context, kind)
            }
            Incoming::None { sampled, single_header } => {
                let span_id = fastrand::u64(1..);
                let high = match (self.wide, self.timestamps) {
                    (false, _) => 0,
                    (true, false) => fastrand::u64(1..),
                    (true, true) => seconds(root.start) << 32 | u64::from(fastrand::u32(..)),
                };
                Context {
                    trace_id: u128::from(high) << 64 | u128::from(span_id),
                    wide: self.wide,
                    span_id,
                    sampled: sampled.unwrap_or(root.traced),
                    single_header,
                    ..Context::default()
                }
            }
        };
        Some(SpanData::new(context, root.head.host(), kind, root.start))
    }

    fn child(&self, parent: &Context, name: &str, relation: Relation) -> SpanData {
        let kind = self.kind(relation, true);
        SpanData::new(self.after(parent, kind), name, kind, SystemTime::now())
    }

    fn inject(&self, span: &Context, headers: &mut HeaderMap) {
        b3::inject(span, headers);
        if self.w3c {
            w3c::inject(span, headers);
        }
    }

    fn report(&self, span: SpanData, worker: usize) {
        self.reporter.report(span, worker);
    }

    fn trace_id(&self, span: &Context) -> String {
        b3::trace_id(span)
    }

    fn span_id(&self, _: &Context) -> Option<String> {
        None
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
