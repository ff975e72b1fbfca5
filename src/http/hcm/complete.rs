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
use http::{HeaderMap, Method, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::connection::HcmConnection;
use crate::{
    access_log::LogCx,
    http::{
        Body, BodyError, Flag, Informational, RequestHead, ResponseHead, Scheme, StreamInfo,
        codec::{Reset, StreamHandle},
        filter::{FilterCx, HttpFilter},
        stream_info::Progress,
    },
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
        info.request_header_bytes = header_bytes;
        let worker = hcm.worker.clone();
        Box::new(Self {
            cx: FilterCx {
                info,
                route: None,
                clear_route_cache: false,
                override_host: None,
                worker,
                filter_name: hcm.info.filter_chain.clone(),
                informational: Informational::new(
                    handle.clone(),
                    hcm.config.proxy_100_continue,
                    hcm.config.via.clone(),
                ),
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

    /// `stream_idle_timeout`, which a route may replace.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
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

    fn complete(&mut self) {
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
                };
                info.flags.set(flag);
                info.response_code_details = Some(details.into());
            } else if info.flags.is_empty() || self.response.is_none() {
                info.flags.set(Flag::DownstreamConnectionTermination);
                info.response_code_details = Some("downstream_remote_disconnect".into());
            }
            if self.response.is_none() {
                info.response_code = None;
            }
            self.hcm.stats().downstream_rq_rx_reset.inc();
        } else if self.head.version == Version::HTTP_2
            && !info.progress.request_complete.get()
            && self.upgrade.is_none()
        {
            // The rest of the request is reset.
            self.hcm.stats().downstream_rq_rx_reset.inc();
        }
        for (name, filter) in self.filters.iter_mut().rev() {
            self.cx.filter_name = name.clone();
            filter.on_complete(&mut self.cx);
        }
        // Only the formats of local replies see the body.
        self.cx.info.local_reply_body = None;
        let stats = self.hcm.stats();
        stats
            .downstream_rq_time
            .record(u64::try_from(now.duration_since(self.cx.info.start).as_millis()).unwrap_or(u64::MAX));
        self.log("DownstreamEnd");
        self.hcm.stream_ended();
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
                }
                if frame.is_trailers() || this.inner.is_end_stream() {
                    this.progress.request_complete.set(true);
                    this.progress.last_downstream_rx.set(now);
                }
            }
            None => {
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
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl EdgeBody {
    pub(super) fn new(inner: Body, mut active: Box<Active>) -> Self {
        // Nothing follows a head whose status or method forbids a body, nor an empty one.
        let status = active.response.as_ref().map(|r| r.status.as_u16()).unwrap_or_default();
        active.ended = inner.is_end_stream() || active.head_request || matches!(status, 100..=199 | 204 | 304);
        Self {
            inner,
            active,
            idle: None,
        }
    }

    /// Ends a response that nothing moves on: the idle timer is armed only when there is something to wait for.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.active.idle_timeout() else {
            return Poll::Pending;
        };
        let (_, sleep) = self
            .idle
            .get_or_insert_with(|| (limit, Box::pin(tokio::time::sleep(limit))));
        std::task::ready!(sleep.as_mut().poll(cx));
        let last = self
            .active
            .cx
            .info
            .progress
            .last_activity
            .get()
            .unwrap_or(self.active.cx.info.start);
        let due = last + limit;
        if due <= Instant::now() {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(due.into());
        // Registers the new deadline.
        sleep.as_mut().poll(cx)
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
                std::task::ready!(this.poll_idle(cx));
                this.active.hcm.stats().downstream_rq_idle_timeout.inc();
                this.active.hcm.stats().downstream_rq_tx_reset.inc();
                this.active.cx.info.flags.set(Flag::StreamIdleTimeout);
                this.active.cx.info.response_code_details = Some("stream_idle_timeout".into());
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
