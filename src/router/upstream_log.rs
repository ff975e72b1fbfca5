//! `upstream_log`: a line for each attempt, as the upstream's side of it was.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{RouterConfig, attempt::Answer, failure::Failure};
use crate::{
    access_log::LogCx,
    http::{RequestHead, ResponseHead, StreamInfo, stream_info::Progress},
    net::Deadline,
};

/// An attempt that will be logged. Dropping it writes the line.
pub(super) struct AttemptLog {
    config: Arc<RouterConfig>,
    /// What kind of line the last one is.
    end: &'static str,
    info: StreamInfo,
    request: RequestHead,
    response: Option<ResponseHead>,
    /// What the attempt has moved; counted only once it has a connection.
    moved: Option<Rc<Progress>>,
    /// When the next line of an attempt that lasts is due.
    due: Option<Deadline>,
}

impl AttemptLog {
    /// None when nothing is logged.
    pub(super) fn start(config: &Arc<RouterConfig>, head: &RequestHead, stream: &StreamInfo) -> Option<Box<Self>> {
        if config.upstream_log.is_empty() {
            return None;
        }
        stream.progress.upstream_bytes_received.set(0);
        let mut info = StreamInfo::new(stream.connection.clone(), None);
        info.upstream.cluster.clone_from(&stream.upstream.cluster);
        info.upstream
            .cluster_observability_name
            .clone_from(&stream.upstream.cluster_observability_name);
        info.upstream.host.clone_from(&stream.upstream.host);
        info.request_id.clone_from(&stream.request_id);
        Some(Box::new(Self {
            config: config.clone(),
            info,
            end: "UpstreamEnd",
            request: head.clone(),
            response: None,
            moved: None,
            due: config.upstream_log_interval.map(Deadline::after),
        }))
    }

    /// Writes a line for an attempt that has its connection now (`flush_upstream_log_on_upstream_stream`).
    pub(super) fn pool_ready(config: &Arc<RouterConfig>, head: &RequestHead, stream: &StreamInfo) {
        if config.upstream_log_on_stream
            && let Some(mut log) = Self::start(config, head, stream)
        {
            log.note_connection(stream);
            log.end = "UpstreamPoolReady";
        }
    }

    /// Takes over how the attempt went.
    pub(super) fn note(&mut self, stream: &StreamInfo, result: &Result<Box<Answer>, Failure>) {
        let connected = !matches!(result, Err(Failure::Connect(_)));
        if connected {
            self.note_connection(stream);
            self.moved = Some(stream.progress.clone());
        }
        match result {
            Ok(answer) => {
                self.info.response_code = Some(answer.head.status);
                self.response = Some(answer.head.clone());
            }
            Err(failure) => {
                self.info.flags.set(failure.flag());
                self.info.upstream.transport_failure = failure.transport_failure().map(str::to_owned);
            }
        }
    }
}

impl AttemptLog {
    /// Writes the lines that are due, and wakes the task for the next one. `update` brings them up to date.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>, update: impl Fn(&mut Self)) {
        while let (Some(due), Some(interval)) = (&mut self.due, self.config.upstream_log_interval)
            && let Poll::Ready(()) = Pin::new(due).poll(cx)
        {
            update(self);
            self.write("UpstreamPeriodic");
            self.due = Some(Deadline::after(interval));
        }
    }

    pub(super) fn note_connection(&mut self, stream: &StreamInfo) {
        let upstream = &mut self.info.upstream;
        upstream.local_address.clone_from(&stream.upstream.local_address);
        upstream.remote_address.clone_from(&stream.upstream.remote_address);
        upstream.protocol = stream.upstream.protocol;
        upstream.tls.clone_from(&stream.upstream.tls);
        upstream.connection_id = stream.upstream.connection_id;
        upstream.pool_ready = stream.upstream.pool_ready;
        self.info.protocol = stream.upstream.protocol;
    }

    fn write(&mut self, kind: &'static str) {
        self.info.access_log_type = kind;
        if let Some(moved) = &self.moved {
            let progress = &self.info.progress;
            // Seen from the upstream's side.
            progress.bytes_sent.set(moved.upstream_bytes_sent.get());
            progress.bytes_received.set(moved.upstream_bytes_received.get());
            progress.upstream_bytes_sent.set(moved.upstream_bytes_sent.get());
            progress
                .upstream_bytes_received
                .set(moved.upstream_bytes_received.get());
        }
        self.config.upstream_log.log(&LogCx {
            request: Some(&self.request),
            response: self.response.as_ref(),
            info: &self.info,
        });
    }
}

impl Drop for AttemptLog {
    fn drop(&mut self) {
        self.info.end = Some(Instant::now());
        self.write(self.end);
    }
}
