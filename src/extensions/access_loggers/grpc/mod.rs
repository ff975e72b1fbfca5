//! `envoy.access_loggers.http_grpc` and `envoy.access_loggers.tcp_grpc`: entries to an `AccessLogService`.
//!
//! Workers make entries and put them in a queue; one task per logger on the control thread gathers them and keeps the
//! stream. A service that is away costs entries, never requests: the queue is bounded, what does not fit is counted.

mod config;
mod entry;
mod sender;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::mpsc;
use xds_protos::envoy::extensions::access_loggers::grpc::v3::{HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig};

use crate::{
    access_log::{AccessLogger, AccessLoggerFactory, LogCx},
    config::{BuildCx, ConfigResult},
    stats::Stats,
    stats_block,
};
pub(super) use config::{Service, common};
pub(in crate::extensions) use entry::address;
use entry::{Entry, Headers};

/// Entries that wait for the task; at 1 KB each about 4 MB in the worst case.
const QUEUE: usize = 4096;

stats_block! {
    /// `access_logs.grpc_access_log.*`
    pub struct GrpcLogStats {
        counter logs_written, "Entries handed to the stream";
        counter logs_dropped, "Entries for which the queue or the stream had no room";
    }
}

/// One gRPC access log.
struct GrpcLog {
    // None: a TCP log, whose entries have no request.
    http: Option<Headers>,
    queue: mpsc::Sender<Entry>,
    stats: Stats<GrpcLogStats>,
}

impl GrpcLog {
    fn start(http: Option<Headers>, service: Service, cx: &BuildCx<'_>) -> Arc<dyn AccessLogger> {
        let (queue, entries) = mpsc::channel(QUEUE);
        let stats: Stats<GrpcLogStats> = cx.server.stats.scope("access_logs.grpc_access_log.").block();
        let of_task = stats.clone();
        // The task ends when the log, and with it the queue's other end, is gone.
        cx.server.mailboxes.run_on_control(move |worker| {
            tokio::task::spawn_local(sender::run(worker.clone(), service, entries, of_task));
        });
        Arc::new(Self { http, queue, stats })
    }
}

impl AccessLogger for GrpcLog {
    fn log(&self, cx: &LogCx<'_>) {
        let entry = match &self.http {
            Some(headers) => Entry::Http(Box::new(entry::http(cx, headers))),
            None => Entry::Tcp(Box::new(entry::tcp(cx))),
        };
        if self.queue.try_send(entry).is_err() {
            self.stats.local().logs_dropped.inc();
        }
    }
}

/// Of `HttpGrpcAccessLogConfig`.
pub struct HttpFactory;

impl AccessLoggerFactory for HttpFactory {
    const NAME: &'static str = "envoy.access_loggers.http_grpc";
    type Proto = HttpGrpcAccessLogConfig;

    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn AccessLogger>> {
        coverage!(cx, proto => HttpGrpcAccessLogConfig {
            supported {
                common_config, additional_request_headers_to_log, additional_response_headers_to_log,
                additional_response_trailers_to_log,
            }
        });
        let headers = Headers::new(
            additional_request_headers_to_log,
            additional_response_headers_to_log,
            additional_response_trailers_to_log,
        );
        let service = config::common(common_config, cx)?;
        Ok(GrpcLog::start(Some(headers), service, cx))
    }
}

/// Of `TcpGrpcAccessLogConfig`.
pub struct TcpFactory;

impl AccessLoggerFactory for TcpFactory {
    const NAME: &'static str = "envoy.access_loggers.tcp_grpc";
    type Proto = TcpGrpcAccessLogConfig;

    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn AccessLogger>> {
        coverage!(cx, proto => TcpGrpcAccessLogConfig { supported { common_config } });
        let service = config::common(common_config, cx)?;
        Ok(GrpcLog::start(None, service, cx))
    }
}
