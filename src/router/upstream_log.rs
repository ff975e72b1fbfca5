//! An attempt as its upstream has seen it: a line of `upstream_log`, and the end of its span.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::HeaderMap;

use super::{RouterConfig, attempt::Answer, failure::Failure, span};
use crate::{
    access_log::LogCx,
    http::{Body, RequestHead, ResponseHead, StreamInfo, filter::FilterCx, stream_info::Progress},
    net::Deadline,
    tracing::Span,
};

/// An attempt that will be logged, or has a span. Dropping it writes the line and ends the span.
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
    /// Where attempts are traced.
    span: Option<Span>,
    /// The span's, as of when the attempt's outcome was known.
    custom_tags: Vec<(String, String)>,
    trailers: Option<HeaderMap>,
    /// How it was reset, if it was.
    reset_reason: Option<&'static str>,
    /// It was given up with its request: its span has no flags.
    untimely: bool,
    /// It has ended by itself.
    pub(super) complete: bool,
}

impl AttemptLog {
    /// None when nothing is logged, and attempts have no spans. The upstream is told of the span in `head`.
    pub(super) fn start(config: &Arc<RouterConfig>, head: &mut RequestHead, cx: &FilterCx) -> Option<Box<Self>> {
        let span = span::start(config, cx, head);
        if span.is_none() && config.upstream_log.is_empty() {
            return None;
        }
        Some(Self::new(config, head, &cx.info, span))
    }

    fn new(config: &Arc<RouterConfig>, head: &RequestHead, stream: &StreamInfo, span: Option<Span>) -> Box<Self> {
        stream.progress.upstream_bytes_received.set(0);
        let mut info = StreamInfo::new(stream.connection.clone(), None);
        info.upstream.cluster.clone_from(&stream.upstream.cluster);
        info.upstream
            .cluster_observability_name
            .clone_from(&stream.upstream.cluster_observability_name);
        info.upstream.host.clone_from(&stream.upstream.host);
        info.request_id.clone_from(&stream.request_id);
        Box::new(Self {
            config: config.clone(),
            info,
            end: "UpstreamEnd",
            request: head.clone(),
            response: None,
            moved: None,
            due: config.upstream_log_interval.map(Deadline::after),
            span,
            custom_tags: Vec::new(),
            trailers: None,
            reset_reason: None,
            untimely: false,
            complete: false,
        })
    }

    /// Writes a line for an attempt that has its connection now (`flush_upstream_log_on_upstream_stream`).
    pub(super) fn pool_ready(config: &Arc<RouterConfig>, head: &RequestHead, stream: &StreamInfo) {
        if config.upstream_log_on_stream && !config.upstream_log.is_empty() {
            let mut log = Self::new(config, head, stream, None);
            log.note_connection(stream);
            log.end = "UpstreamPoolReady";
        }
    }

    /// Takes over how the attempt went.
    pub(super) fn note(&mut self, cx: &FilterCx, result: &Result<Box<Answer>, Failure>) {
        let stream = &cx.info;
        self.note_stream(cx);
        self.complete = match result {
            Ok(answer) => matches!(answer.body, Body::Empty),
            Err(Failure::Connect(_) | Failure::Upstream(_) | Failure::NoPool) => true,
            Err(Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle | Failure::MaxDuration) => false,
        };
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
                self.note_reset(failure);
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

    /// Takes over what the span is to tell of the request's stream.
    pub(super) fn note_stream(&mut self, cx: &FilterCx) {
        if let Some(span) = &self.span {
            self.custom_tags = span::describe(span, cx, &self.request);
        }
    }

    /// Takes over what follows the response's body.
    pub(super) fn note_trailers(&mut self, trailers: &HeaderMap) {
        if self.span.is_some() {
            self.trailers = Some(trailers.clone());
        }
    }

    fn note_reset(&mut self, failure: &Failure) {
        match failure {
            Failure::Connect(_) | Failure::Upstream(_) => self.reset_reason = Some(failure.reset_reason()),
            // The request's time is up, of which the attempt knows nothing.
            Failure::Timeout => self.untimely = true,
            Failure::NoPool | Failure::PerTryTimeout | Failure::PerTryIdle | Failure::MaxDuration => {}
        }
    }

    /// The response broke off.
    pub(super) fn note_late(&mut self, failure: &Failure) {
        self.info.flags.set(failure.flag());
        self.note_reset(failure);
        self.complete = matches!(failure, Failure::Upstream(_));
    }

    fn write(&mut self, kind: &'static str) {
        if self.config.upstream_log.is_empty() {
            return;
        }
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
        if self.untimely {
            self.info.flags = Default::default();
        }
        if let Some(span) = &self.span {
            let ended = span::Ended {
                reset_reason: self.reset_reason,
                info: &self.info,
                moved: self.moved.as_deref(),
                headers: self.response.as_ref().map(|r| &r.headers),
                trailers: self.trailers.as_ref(),
                canceled: !self.complete,
            };
            span::finish(span, &ended, std::mem::take(&mut self.custom_tags));
        }
    }
}
