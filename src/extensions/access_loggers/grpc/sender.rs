//! The task that gathers entries and keeps the stream.

use std::{rc::Rc, sync::Arc};

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, client::Grpc};
use tonic_prost::ProstCodec;
use xds_protos::{
    envoy::{
        config::core::v3::Node,
        service::accesslog::v3::{
            StreamAccessLogsMessage, StreamAccessLogsResponse,
            stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
        },
    },
    prost::Message,
};

use super::{
    super::gather::{Limits, gather},
    GrpcLogStats,
    config::Service,
    entry::Entry,
};
use crate::{server::Worker, stats::Stats, upstream::client::ClusterChannel};

const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// Messages that wait for a slow service, each of about `buffer_size_bytes`.
const MESSAGES: usize = 16;

/// Runs until the queue's other end is gone, and sends what is left.
pub(super) async fn run(
    worker: Rc<Worker>,
    service: Service,
    entries: mpsc::Receiver<Entry>,
    stats: Stats<GrpcLogStats>,
) {
    let limits = Limits {
        interval: service.flush_interval,
        bytes: service.buffer_size,
    };
    let mut stream: Option<mpsc::Sender<StreamAccessLogsMessage>> = None;
    let size = |entry: &Entry| match entry {
        Entry::Http(e) => e.encoded_len(),
        Entry::Tcp(e) => e.encoded_len(),
    };
    gather(entries, limits, size, |batch| {
        send(&worker, &service, &mut stream, batch, &stats);
    })
    .await;
}

/// A log makes entries of one kind only.
fn log_entries(batch: Vec<Entry>) -> LogEntries {
    let (mut http, mut tcp) = (Vec::new(), Vec::new());
    for entry in batch {
        match entry {
            Entry::Http(e) => http.push(*e),
            Entry::Tcp(e) => tcp.push(*e),
        }
    }
    if tcp.is_empty() {
        LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: http })
    } else {
        LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: tcp })
    }
}

fn send(
    worker: &Rc<Worker>,
    service: &Service,
    stream: &mut Option<mpsc::Sender<StreamAccessLogsMessage>>,
    batch: Vec<Entry>,
    stats: &Stats<GrpcLogStats>,
) {
    let count = batch.len() as u64;
    let mut message = StreamAccessLogsMessage {
        identifier: None,
        log_entries: Some(log_entries(batch)),
    };
    let open = match stream.take().filter(|s| !s.is_closed()) {
        Some(open) => open,
        None => {
            message.identifier = Some(identifier(&worker.server.node, &service.log_name));
            open(worker, service)
        }
    };
    let stats = stats.local();
    match open.try_send(message) {
        Ok(()) => stats.logs_written.add(count),
        Err(_) => stats.logs_dropped.add(count),
    }
    *stream = Some(open);
}

fn identifier(node: &Arc<Node>, log_name: &str) -> Identifier {
    Identifier {
        node: Some(node.as_ref().clone()),
        log_name: log_name.to_owned(),
    }
}

/// Opens a stream. When it ends, for whatever reason, the sender is closed and the next flush opens another.
fn open(worker: &Rc<Worker>, service: &Service) -> mpsc::Sender<StreamAccessLogsMessage> {
    let (sender, messages) = mpsc::channel(MESSAGES);
    let channel = service.target.channel(worker.clone());
    let cluster = service.target.cluster.clone();
    let request = service.target.request(ReceiverStream::new(messages), None);
    tokio::task::spawn_local(async move {
        if let Err(status) = stream(channel, request).await {
            tracing::debug!(%cluster, "access log stream closed: {}", status.message());
        }
    });
    sender
}

async fn stream(
    channel: ClusterChannel,
    request: Request<ReceiverStream<StreamAccessLogsMessage>>,
) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<StreamAccessLogsMessage, StreamAccessLogsResponse>::default();
    client
        .client_streaming(request, PathAndQuery::from_static(METHOD), codec)
        .await?;
    Ok(())
}
