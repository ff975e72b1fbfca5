//! The life of a stream around its filters: what it holds, how its bodies are counted, and what happens
//! when it ends, well or not.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{connection::HcmConnection, request_id::Reason, tracing};
use crate::{
    access_log::LogCx,
    http::{
        Body, BodyError, Flag, Informational, RequestHead, ResponseHead, Scheme, StreamInfo,
        codec::{Handler, Reset, StreamHandle},
        filter::{FilterCx, HttpFilter},
        stream_info::Progress,
    },
    net::Deadline,
    server::overload::ScaledTimer,
};

/// A stream from its head to its last byte. Dropping it completes it.
pub(super) struct Active {
    pub(super) hcm: Rc<HcmConnection>,
    pub(super) cx: FilterCx,
    pub(super) head: RequestHead,
    pub(super) filters: Vec<(Arc<str>, Box<dyn HttpFilter>)>,
    pub(super) response: Option<ResponseHead>,
    /// The protocol of an upgrade that was asked for, lower-case.
    pub(super) upgrade: Option<String>,
    pub(super) grpc: bool,
    /// The connection has to end with this response.
    pub(super) close: bool,
    /// The response was handed to the codec to its end.
    pub(super) ended: bool,
    pub(super) head_request: bool,
    /// The codec's side of the stream.
    pub(super) handle: StreamHandle,
    /// There is no request: `head` is made up.
    pub(super) headless: bool,
    /// The port that the host of a CONNECT has lost.
    pub(super) connect_port: Option<u32>,
    /// `x-envoy-decorator-operation` of the response.
    pub(super) operation: Option<HeaderValue>,
    /// Why it is traced, or not.
    pub(super) trace_reason: Reason,
    /// The response was ended by one of our timers.
    pub(super) cut_short: bool,
    /// When `max_stream_duration` has passed.
    pub(super) ends_at: Option<Instant>,
    /// A flag that is set once the answer is made, so that the answer does not tell it.
    pub(super) late_flag: Option<Flag>,
}

impl Active {
    pub(super) fn start(
        hcm: Rc<HcmConnection>,
        head: RequestHead,
        header_bytes: u64,
        handle: StreamHandle,
    ) -> Box<Self> {
        hcm.stream_started();
        let mut info = StreamInfo::new(hcm.info.clone(), Some(head.version));
        hcm.info.protocol.set(Some(head.version));
        info.request_header_bytes = header_bytes;
        meter(&head, header_bytes, &info.progress.meters.downstream_received);
        let worker = hcm.worker.clone();
        Box::new(Self {
            cx: FilterCx {
                overload: hcm.overload.clone(),
                info,
                route: None,
                clear_route_cache: false,
                override_host: None,
                on_demand_routes: None,
                newer_routes: None,
                worker,
                filter_name: hcm.info.filter_chain.clone(),
                informational: Informational::new(handle.clone(), hcm.config.clone()),
                span: None,
            },
            head_request: head.method == Method::HEAD,
            head,
            filters: Vec::new(),
            response: None,
            upgrade: None,
            grpc: false,
            close: false,
            ended: false,
            handle,
            headless: false,
            connect_port: None,
            operation: None,
            trace_reason: Reason::NotTraceable,
            cut_short: false,
            ends_at: None,
            late_flag: None,
            hcm,
        })
    }

    /// A stream that was reset before it became a request.
    pub(super) fn refused(hcm: Rc<HcmConnection>, reset: Reset) -> Box<Self> {
        let mut active = Self::without_request(hcm);
        active.handle = StreamHandle::refused(reset);
        active
    }

    /// A stream whose request never came, or not whole.
    pub(super) fn without_request(hcm: Rc<HcmConnection>) -> Box<Self> {
        let head = RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: None,
            path: None,
            protocol: None,
            version: hcm.version.get(),
            headers: HeaderMap::new(),
            spelling: None,
        };
        let mut active = Self::start(hcm, head, 0, StreamHandle::default());
        active.headless = true;
        active.close = true;
        active
    }

    /// `stream_idle_timeout`, which a route may replace, as long as it is now.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        let full = self.full_idle_timeout()?;
        Some(self.hcm.scaled(ScaledTimer::StreamIdle, full))
    }

    /// `stream_idle_timeout`, which a route may replace.
    pub(super) fn full_idle_timeout(&self) -> Option<Duration> {
        match self
            .cx
            .route
            .as_ref()
            .and_then(|r| r.forward())
            .map(|a| a.timeouts.idle)
        {
            Some(Some(of_route)) => Some(of_route).filter(|d| !d.is_zero()),
            _ => self.hcm.config.stream_idle_timeout,
        }
    }

    /// When the next line of a running stream is due, by `access_log_flush_interval`.
    pub(super) fn next_log(&self) -> Option<Instant> {
        self.hcm.config.log_moments.next(self.cx.info.start)
    }

    fn complete(&mut self) {
        self.meter_sent();
        let info = &mut self.cx.info;
        let now = Instant::now();
        info.end = Some(now);
        info.progress
            .last_downstream_tx
            .set(info.progress.last_downstream_tx.get().or(Some(now)));
        let reset = self.handle.reset();
        if !self.ended || reset.is_some() {
            // The client broke the protocol or went away, or the response broke off: the codec dropped it.
            if let Some(fault) = self.handle.fault() {
                info.flags.set(Flag::DownstreamProtocolError);
                info.response_code_details = Some(fault.details().into());
            } else if let Some(reset) = reset {
                let (flag, details) = match reset {
                    Reset::Remote(details) => (Flag::DownstreamRemoteReset, details),
                    Reset::Protocol(details) => (Flag::DownstreamProtocolError, details),
                    Reset::Overload => (Flag::OverloadManager, "overload"),
                    Reset::Local(details) => (Flag::DownstreamConnectionTermination, details),
                };
                info.flags.set(flag);
                info.response_code_details = Some(details.into());
            } else if !self.cut_short && (info.flags.is_empty() || self.response.is_none()) {
                info.flags.set(Flag::DownstreamConnectionTermination);
                info.response_code_details = Some(match self.hcm.cut_by() {
                    Some(reason) => format!("downstream_local_disconnect({reason})").into(),
                    None => "downstream_remote_disconnect".into(),
                });
                self.hcm.cut.set(self.hcm.cut.get() + 1);
            }
            if self.response.is_none() {
                info.response_code = None;
            }
        }
        // Envoy counts its own resets here, too: a request that was answered before its end is one.
        let cut = !self.cx.info.progress.request_complete.get()
            && (self.head.version < Version::HTTP_2 || self.upgrade.is_none());
        if !self.ended || reset.is_some() || cut || self.handle.tunnel_cut() {
            self.hcm.stats().downstream_rq_rx_reset.inc();
        }
        for (name, filter) in self.filters.iter_mut().rev() {
            self.cx.filter_name = name.clone();
            filter.on_complete(&mut self.cx);
        }
        for (name, filter) in &mut self.filters {
            self.cx.filter_name = name.clone();
            filter.log(&mut self.cx, &self.head, self.response.as_ref());
        }
        // Only the formats of local replies see the body.
        self.cx.info.local_reply_body = None;
        let stats = self.hcm.stats();
        stats
            .downstream_rq_time
            .record(u64::try_from(now.duration_since(self.cx.info.start).as_millis()).unwrap_or(u64::MAX));
        self.log("DownstreamEnd");
        let config = &self.hcm.config;
        if config.sampling.is_some() && !self.cx.info.health_check {
            self.trace_reason.count(config.tracing_stats.local());
        }
        if self.cx.span.is_some() {
            tracing::finish(self);
        }
        self.hcm.stream_ended();
    }

    /// Takes over from the codec what it has written.
    fn meter_sent(&self) {
        let meter = &self.cx.info.progress.meters.downstream_sent;
        match (self.handle.sent_head(), &self.response) {
            (Some(sent), _) => {
                meter.header.set(sent.total.saturating_sub(sent.line + 2));
                meter.decompressed.set(meter.header.get());
                meter.head.set(sent.total);
                if sent.chunked {
                    meter.end();
                } else {
                    meter.framing.set(0);
                }
            }
            (None, Some(response)) if self.head.version >= Version::HTTP_2 => {
                meter.h2(&response.headers, &[(":status", response.status.as_str())]);
            }
            _ => {}
        }
    }

    /// Writes a line of this type (`%ACCESS_LOG_TYPE%`).
    pub(super) fn log(&mut self, kind: &'static str) {
        let info = &mut self.cx.info;
        info.access_log_type = kind;
        let log = &self.hcm.config.access_log;
        if !log.is_empty() {
            log.log(&LogCx {
                request: (!self.headless).then_some(&self.head),
                response: self.response.as_ref(),
                info,
            });
        }
    }
}

/// Counts the head of a request.
fn meter(head: &RequestHead, bytes: u64, meter: &crate::http::stream_info::Meter) {
    let authority = head.authority.as_ref().map(|a| a.to_str().unwrap_or_default());
    if head.version < Version::HTTP_2 {
        let host = authority.map(|a| ("host", a));
        meter.read_h1(0, &head.headers, host.as_slice(), Some(bytes));
        meter.chunked.set(crate::http::stream_info::is_chunked(&head.headers));
        return;
    }
    let path = head.path.as_ref().map(|p| p.as_str()).unwrap_or_default();
    meter.h2(
        &head.headers,
        &[
            (":method", head.method.as_str()),
            (":path", path),
            (":scheme", head.scheme.as_str()),
            (":authority", authority.unwrap_or_default()),
        ],
    );
}

impl Drop for Active {
    fn drop(&mut self) {
        self.complete();
    }
}

/// A request body on its way from the codec: counts bytes and notes when it is complete.
pub(super) struct CountedBody {
    inner: Body,
    progress: Rc<Progress>,
}

impl CountedBody {
    /// `endless`: an empty body is not the end of the request.
    pub(super) fn wrap(body: Body, info: &StreamInfo, endless: bool) -> Body {
        let progress = info.progress.clone();
        if matches!(body, Body::Empty) && endless {
            return Body::Empty;
        }
        if matches!(body, Body::Empty) {
            progress.request_complete.set(true);
            progress.last_downstream_rx.set(Some(info.start));
            return Body::Empty;
        }
        Body::boxed(Self { inner: body, progress })
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let now = Some(Instant::now());
        this.progress.last_activity.set(now);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.progress
                        .bytes_received
                        .set(this.progress.bytes_received.get() + data.len() as u64);
                    this.progress.meters.downstream_received.data(data.len());
                }
                if frame.is_trailers() || this.inner.is_end_stream() {
                    this.progress.meters.downstream_received.end();
                    this.progress.request_complete.set(true);
                    this.progress.last_downstream_rx.set(now);
                }
            }
            None => {
                this.progress.meters.downstream_received.end();
                this.progress.request_complete.set(true);
                this.progress.last_downstream_rx.set(now);
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body on its way to the codec. It owns the stream, so the stream completes when the codec is
/// done with the body, or drops it.
pub(super) struct EdgeBody {
    inner: Body,
    active: Box<Active>,
    timer: Option<(Instant, Deadline)>,
    /// When the next line of a running stream is due.
    log_at: Option<Instant>,
}

/// Which timer of a response ran out.
#[derive(Debug, Clone, Copy)]
enum Expired {
    Idle,
    Longest,
    /// No end: a line is due.
    Log,
}

impl EdgeBody {
    pub(super) fn new(inner: Body, mut active: Box<Active>) -> Self {
        // Nothing follows a head whose status or method forbids a body, nor an empty one.
        let status = active.response.as_ref().map(|r| r.status.as_u16()).unwrap_or_default();
        let progress = &active.cx.info.progress;
        progress
            .first_downstream_tx
            .set(progress.first_downstream_tx.get().or_else(|| Some(Instant::now())));
        // The codec knows better when it has written the head.
        progress.meters.downstream_sent.chunked.set(true);
        active.ended = inner.is_end_stream() || active.head_request || matches!(status, 100..=199 | 204 | 304);
        Self {
            inner,
            timer: None,
            log_at: active.next_log(),
            active,
        }
    }

    /// Ends a response that nothing moves on, or that takes too long: the timer is armed only when there is something
    /// to wait for.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let info = &self.active.cx.info;
            let last = info.progress.last_activity.get().unwrap_or(info.start);
            let idle = self.active.idle_timeout().map(|limit| (last + limit, Expired::Idle));
            let longest = self.active.ends_at.map(|at| (at, Expired::Longest));
            let log = self.log_at.map(|at| (at, Expired::Log));
            let Some((due, expired)) = idle.into_iter().chain(longest).chain(log).min_by_key(|(at, _)| *at) else {
                return Poll::Pending;
            };
            if due <= Instant::now() {
                if let Expired::Log = expired {
                    self.active.log("DownstreamPeriodic");
                    self.log_at = self.active.next_log();
                    continue;
                }
                return Poll::Ready(expired);
            }
            // It is left to run out early rather than moved with each frame.
            if self.timer.as_ref().is_none_or(|(at, _)| *at > due) {
                self.timer = Some((due, Deadline::at(due)));
            }
            if let Some((_, deadline)) = &mut self.timer {
                std::task::ready!(Pin::new(deadline).poll(cx));
            }
            self.timer = None;
        }
    }

    /// What is known of a stream that ends so.
    fn note_expired(&mut self, expired: Expired) {
        let stats = self.active.hcm.stats();
        let info = &mut self.active.cx.info;
        stats.downstream_rq_tx_reset.inc();
        match expired {
            Expired::Idle => {
                stats.downstream_rq_idle_timeout.inc();
                info.flags.set(Flag::StreamIdleTimeout);
                info.response_code_details = Some("stream_idle_timeout".into());
            }
            Expired::Longest => {
                stats.downstream_rq_max_duration_reached.inc();
                info.response_code_details = Some("max_duration_timeout".into());
            }
            Expired::Log => {}
        }
        self.active.cut_short = true;
    }
}

impl HttpBody for EdgeBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let expired = std::task::ready!(this.poll_expired(cx));
                this.note_expired(expired);
                return Poll::Ready(Some(Err(BodyError::IdleTimeout)));
            }
        };
        let info = &mut this.active.cx.info;
        let progress = &info.progress;
        let now = Instant::now();
        progress.last_activity.set(Some(now));
        match &frame {
            Some(Ok(frame)) => {
                if progress.first_downstream_tx.get().is_none() {
                    progress.first_downstream_tx.set(Some(now));
                }
                if let Some(data) = frame.data_ref() {
                    progress.bytes_sent.set(progress.bytes_sent.get() + data.len() as u64);
                    progress.meters.downstream_sent.data(data.len());
                } else if let Some(trailers) = frame.trailers_ref() {
                    info.response_trailers = Some(trailers.clone());
                }
                if this.inner.is_end_stream() {
                    this.active.ended = true;
                }
            }
            None => this.active.ended = true,
            Some(Err(error)) => {
                this.active.hcm.stats().downstream_rq_tx_reset.inc();
                let (flag, details) = match error {
                    BodyError::Upstream { flag, details } => (*flag, details.clone()),
                    _ => (
                        Flag::UpstreamConnectionTermination,
                        "upstream_reset_after_response_started{connection_termination}".into(),
                    ),
                };
                info.flags.set(flag);
                info.response_code_details = Some(details);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
