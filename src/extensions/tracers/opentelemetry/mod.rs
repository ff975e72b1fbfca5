//! `envoy.tracers.opentelemetry`: spans to an OTLP collector over gRPC or HTTP; W3C trace context between hops.

mod export;
mod proto;
mod resource;
mod sampler;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use xds_protos::envoy::config::trace::v3::OpenTelemetryConfig as Proto;

use super::{
    http_collector::HttpCollector,
    w3c::{self, Parent, TRACESTATE},
};
use crate::{
    config::{BuildCx, ConfigResult},
    extensions::grpc_service::Target,
    stats::Stats,
    stats_block,
    tracing::{Batching, Context, Direction, Kind, Relation, Reporter, Root, SpanData, Tracer, TracerFactory},
};
use export::{Exporter, Transport};
use sampler::Sampler;

/// `max_cache_size` when the configuration does not say.
const MOST_SPANS: u32 = 1024;

stats_block! {
    /// `tracing.opentelemetry.*`
    pub struct OpenTelemetryStats {
        counter spans_sent, "Spans handed to the collector";
        counter spans_dropped, "Spans for which there was no room";
        counter timer_flushed, "How often the flush timer ran out";
    }
}

/// The extension.
pub struct Factory;

impl TracerFactory for Factory {
    const NAME: &'static str = "envoy.tracers.opentelemetry";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn Tracer>> {
        coverage!(cx, proto => Proto {
            supported {
                grpc_service, http_service, service_name, resource_detectors, sampler, max_cache_size,
                set_telemetry_sdk_resource_attributes, set_service_name_resource_attribute, set_instrumentation_scope,
            }
            rejected { exporter: "exporter extensions" }
        });
        let transport = match (grpc_service, http_service) {
            (Some(_), Some(_)) | (None, None) => {
                return Err(cx.error(
                    "OpenTelemetry Tracer must have exactly one of gRPC, HTTP, or custom exporter configured.",
                ));
            }
            (Some(service), None) => {
                let target = cx.field("grpc_service", |cx| Target::build(service, cx))?;
                Transport::Grpc(target)
            }
            (None, Some(service)) => {
                let collector = cx.field("http_service", |cx| HttpCollector::build(service, cx))?;
                Transport::Http(collector)
            }
        };
        let on = |flag: Option<xds_protos::google::protobuf::BoolValue>| flag.is_none_or(|v| v.value);
        let mut resource = resource::Resource::default();
        if on(set_telemetry_sdk_resource_attributes) {
            resource.describe_sdk();
        }
        if on(set_service_name_resource_attribute) {
            resource.name_service(&service_name);
        }
        for (i, detector) in resource_detectors.into_iter().enumerate() {
            cx.item("resource_detectors", i, |cx| resource.detect(detector, cx))?;
        }
        let sampler = cx.opt("sampler", sampler, Sampler::build)?;
        let stats: Stats<OpenTelemetryStats> = cx.server.stats.scope("tracing.opentelemetry.").block();
        let exporter = Exporter::new(transport, resource, on(set_instrumentation_scope), stats.clone());
        let batching = Batching::new("tracing.opentelemetry.", cx);
        let most = max_cache_size.map_or(MOST_SPANS, |v| v.value);
        Ok(Arc::new(OpenTelemetry {
            sampler,
            reporter: Reporter::start(Arc::new(exporter), batching, most as usize, cx),
            stats,
        }))
    }
}

struct OpenTelemetry {
    sampler: Option<Sampler>,
    reporter: Reporter,
    stats: Stats<OpenTelemetryStats>,
}

impl Tracer for OpenTelemetry {
    fn start(&self, root: &Root<'_>) -> Option<SpanData> {
        let parent = match w3c::extract(&root.head.headers) {
            Parent::Malformed => return None,
            Parent::None => None,
            Parent::Known(parent) => Some(parent),
        };
        let mut context = match &parent {
            None => Context {
                trace_id: fastrand::u128(1..),
                wide: true,
                span_id: fastrand::u64(1..),
                sampled: root.traced,
                ..Context::default()
            },
            Some(parent) => Context {
                remote: true,
                ..below(parent)
            },
        };
        if let Some(sampler) = &self.sampler {
            context.sampled = sampler.samples(parent.as_ref(), context.trace_id);
        }
        // Neither a sampler nor the hop before gets what the connection manager does not want.
        context.sampled &= root.traced;
        let Relation { direction, independent } = root.relation;
        let (kind, name) = match direction {
            Direction::Egress if independent => (Kind::Server, format!("egress {}", root.head.host())),
            Direction::Egress => (Kind::Client, format!("egress {}", root.head.host())),
            Direction::Ingress => (Kind::Server, "ingress".to_owned()),
        };
        Some(SpanData::new(context, &name, kind, root.start))
    }

    fn child(&self, parent: &Context, name: &str, _: Relation) -> SpanData {
        let mut context = below(parent);
        if let Some(sampler) = &self.sampler {
            context.sampled = sampler.samples(Some(parent), context.trace_id);
        }
        SpanData::new(context, name, Kind::Client, std::time::SystemTime::now())
    }

    fn inject(&self, span: &Context, headers: &mut HeaderMap) {
        w3c::inject(span, headers);
        if let Ok(state) = HeaderValue::from_str(&span.state) {
            headers.insert(TRACESTATE, state);
        }
    }

    fn report(&self, span: SpanData, worker: usize) {
        if !self.reporter.report(span, worker) {
            self.stats.local().spans_dropped.inc();
        }
    }

    fn trace_id(&self, span: &Context) -> String {
        format!("{:032x}", span.trace_id)
    }

    fn span_id(&self, span: &Context) -> Option<String> {
        Some(format!("{:016x}", span.span_id))
    }
}

/// The place below a span.
fn below(parent: &Context) -> Context {
    Context {
        span_id: fastrand::u64(1..),
        parent: Some(parent.span_id),
        remote: false,
        ..parent.clone()
    }
}
