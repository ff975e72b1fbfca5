//! The task that gathers entries and keeps the stream.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use tokio::{sync::mpsc, time::Instant};
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

use super::{GrpcLogStats, config::Service, entry::Entry};
use crate::{server::Worker, stats::Stats, upstream::client::ClusterChannel};

const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// Messages that wait for a slow service, each of about `buffer_size_bytes`.
const MESSAGES: usize = 16;

/// The least time between two flushes, whatever the configuration says.
const SHORTEST: Duration = Duration::from_millis(1);

/// Runs until the queue's other end is gone, and sends what is left.
pub(super) async fn run(
    worker: Rc<Worker>,
    service: Service,
    mut entries: mpsc::Receiver<Entry>,
    stats: Stats<GrpcLogStats>,
) {
    let mut batch = Batch::default();
    let mut stream: Option<mpsc::Sender<StreamAccessLogsMessage>> = None;
    loop {
        // The time runs from the first entry, so that an idle log wakes nobody.
        let due = batch.since.map(|t| t + service.flush_interval.max(SHORTEST));
        let flush = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let last = tokio::select! {
            entry = entries.recv() => match entry {
                Some(entry) => {
                    batch.push(entry);
                    if batch.bytes < service.buffer_size {
                        continue;
                    }
                    false
                }
                None => true,
            },
            () = flush => false,
        };
        if !batch.is_empty() {
            send(&worker, &service, &mut stream, std::mem::take(&mut batch), &stats);
        }
        if last {
            return;
        }
    }
}

#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
    since: Option<Instant>,
}

impl Batch {
    fn push(&mut self, entry: Entry) {
        self.bytes += match &entry {
            Entry::Http(e) => e.encoded_len(),
            Entry::Tcp(e) => e.encoded_len(),
        };
        self.entries.push(entry);
        self.since.get_or_insert_with(Instant::now);
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    // A log makes entries of one kind only.
    fn into_entries(self) -> LogEntries {
        let (mut http, mut tcp) = (Vec::new(), Vec::new());
        for entry in self.entries {
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
}

fn send(
    worker: &Rc<Worker>,
    service: &Service,
    stream: &mut Option<mpsc::Sender<StreamAccessLogsMessage>>,
    batch: Batch,
    stats: &Stats<GrpcLogStats>,
) {
    let count = batch.entries.len() as u64;
    let mut message = StreamAccessLogsMessage {
        identifier: None,
        log_entries: Some(batch.into_entries()),
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
    let channel = ClusterChannel::new(worker.clone(), service.cluster.as_str(), service.authority.as_deref());
    let cluster = service.cluster.clone();
    tokio::task::spawn_local(async move {
        if let Err(status) = stream(channel, messages).await {
            tracing::debug!(cluster, "access log stream closed: {}", status.message());
        }
    });
    sender
}

async fn stream(channel: ClusterChannel, messages: mpsc::Receiver<StreamAccessLogsMessage>) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<StreamAccessLogsMessage, StreamAccessLogsResponse>::default();
    client
        .client_streaming(
            Request::new(ReceiverStream::new(messages)),
            PathAndQuery::from_static(METHOD),
            codec,
        )
        .await?;
    Ok(())
}
