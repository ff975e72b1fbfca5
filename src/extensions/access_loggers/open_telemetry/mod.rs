//! `envoy.access_loggers.open_telemetry`: log records to an OTLP collector over gRPC.
//!
//! Workers make records and put them in a queue; one task per logger on the control thread gathers them and exports
//! them, a call for each batch. A collector that is away costs records, never requests.

mod proto;
mod record;
#[cfg(test)]
mod tests;

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::{Status, client::Grpc};
use tonic_prost::ProstCodec;
use xds_protos::{
    envoy::{
        config::core::v3::Node, extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig as Proto,
    },
    opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value},
    prost::Message,
};

use super::{
    gather::{Limits, gather},
    grpc,
};
use crate::{
    access_log::{AccessLogger, AccessLoggerFactory, LogCx},
    config::{BuildCx, ConfigResult, DurationExt},
    extensions::grpc_service::Target,
    formatter::Commands,
    server::Worker,
    stats::Stats,
    stats_block,
};
use proto::{ExportLogsServiceRequest, ExportLogsServiceResponse, LogRecord, Resource, ResourceLogs, ScopeLogs};
use record::RecordFormat;

const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Records that wait for the task.
const QUEUE: usize = 4096;

/// Calls that wait for a slow collector; batches beyond are dropped.
const CALLS: u32 = 16;

/// How long a call may take when the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

stats_block! {
    /// `access_logs.open_telemetry_access_log.[<stat_prefix>.]*`
    struct OpenTelemetryStats {
        counter logs_written, "Records that the collector took";
        counter logs_dropped, "Records that could not be handed on";
    }
}

/// The extension.
pub struct Factory;

impl AccessLoggerFactory for Factory {
    const NAME: &'static str = "envoy.access_loggers.open_telemetry";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn AccessLogger>> {
        coverage!(cx, proto => Proto {
            supported {
                common_config, grpc_service, disable_builtin_labels, resource_attributes, body, attributes, stat_prefix,
                formatters, log_name, buffer_flush_interval, buffer_size_bytes
            }
            ignored {
                resource_detectors: "the resource is described by its configured attributes",
                filter_state_objects_to_log: "filter state is not in the records",
                custom_tags: "custom tags are not in the records",
            }
            rejected { http_service: "OTLP over HTTP" }
        });
        let commands = Commands::build(formatters, cx)?;
        let service = match (common_config, grpc_service) {
            (Some(_), Some(_)) => {
                return Err(cx.error(
                    "OpenTelemetry access logger can only have one transport configured. Specify exactly one of: \
                     grpc_service, http_service, or common_config.grpc_service.",
                ));
            }
            (Some(common), None) => grpc::common(Some(common), cx)?,
            (None, Some(service)) => grpc::Service {
                target: cx.field("grpc_service", |cx| Target::build(service, cx))?,
                log_name,
                flush_interval: buffer_flush_interval.or_duration(Duration::from_secs(1)),
                buffer_size: buffer_size_bytes.map_or(16384, |v| v.value as usize),
            },
            (None, None) => {
                return Err(cx.error(
                    "OpenTelemetry access logger requires one of: grpc_service, http_service, or \
                     common_config.grpc_service to be configured.",
                ));
            }
        };
        let format = RecordFormat::build(body, attributes, &commands, cx)?;
        let resource = Resource {
            attributes: match disable_builtin_labels {
                true => Vec::new(),
                false => builtin_labels(&service.log_name, &cx.server.node),
            }
            .into_iter()
            .chain(resource_attributes.unwrap_or_default().values)
            .collect(),
        };
        let mut scope = "access_logs.open_telemetry_access_log.".to_owned();
        if !stat_prefix.is_empty() {
            scope.push_str(&stat_prefix);
            scope.push('.');
        }
        let stats: Stats<OpenTelemetryStats> = cx.server.stats.scope(&scope).block();
        let (queue, records) = mpsc::channel(QUEUE);
        let exporter = Exporter {
            target: service.target,
            resource,
            stats: stats.clone(),
        };
        let limits = Limits {
            interval: service.flush_interval,
            bytes: service.buffer_size,
        };
        // The task ends when the log, and with it the queue's other end, is gone.
        cx.server.mailboxes.run_on_control(move |worker| {
            let worker = worker.clone();
            tokio::task::spawn_local(async move {
                let exporter = Rc::new(exporter);
                let calls = Rc::new(Cell::new(0));
                gather(records, limits, LogRecord::encoded_len, |batch| {
                    exporter.export(&worker, &calls, batch);
                })
                .await;
            });
        });
        Ok(Arc::new(OpenTelemetryLog { format, queue, stats }))
    }
}

struct OpenTelemetryLog {
    format: RecordFormat,
    queue: mpsc::Sender<LogRecord>,
    stats: Stats<OpenTelemetryStats>,
}

impl AccessLogger for OpenTelemetryLog {
    fn log(&self, cx: &LogCx<'_>) {
        if self.queue.try_send(self.format.record(cx)).is_err() {
            self.stats.local().logs_dropped.inc();
        }
    }
}

/// `log_name` and who this proxy is, as Envoy tells it.
fn builtin_labels(log_name: &str, node: &Node) -> Vec<KeyValue> {
    let zone = node.locality.as_ref().map_or("", |l| l.zone.as_str());
    let labels = [
        ("log_name", log_name),
        ("zone_name", zone),
        ("cluster_name", &node.cluster),
        ("node_name", &node.id),
    ];
    let pair = |(key, value): (&str, &str)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    };
    labels.into_iter().map(pair).collect()
}

struct Exporter {
    target: Target,
    resource: Resource,
    stats: Stats<OpenTelemetryStats>,
}

impl Exporter {
    fn export(self: &Rc<Self>, worker: &Rc<Worker>, calls: &Rc<Cell<u32>>, log_records: Vec<LogRecord>) {
        let count = log_records.len() as u64;
        if calls.get() >= CALLS {
            self.stats.local().logs_dropped.add(count);
            return;
        }
        let message = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs: vec![ScopeLogs { log_records }],
            }],
        };
        calls.set(calls.get() + 1);
        let (exporter, worker, calls) = (self.clone(), worker.clone(), calls.clone());
        tokio::task::spawn_local(async move {
            let timeout = exporter.target.timeout.unwrap_or(TIMEOUT);
            let answer = tokio::time::timeout(timeout, exporter.call(worker, message)).await;
            calls.set(calls.get() - 1);
            let stats = exporter.stats.local();
            match answer {
                Ok(Ok(())) => stats.logs_written.add(count),
                Ok(Err(status)) => {
                    tracing::debug!(
                        cluster = %exporter.target.cluster,
                        "log export failed: {}",
                        status.message()
                    );
                    stats.logs_dropped.add(count);
                }
                Err(_) => stats.logs_dropped.add(count),
            }
        });
    }

    async fn call(&self, worker: Rc<Worker>, message: ExportLogsServiceRequest) -> Result<(), Status> {
        let mut client = Grpc::new(self.target.channel(worker));
        client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let codec = ProstCodec::<ExportLogsServiceRequest, ExportLogsServiceResponse>::default();
        let request = self.target.request(message, None);
        client.unary(request, PathAndQuery::from_static(METHOD), codec).await?;
        Ok(())
    }
}
