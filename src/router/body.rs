//! Bodies on the upstream's side: counted, timed, and held to the route's timeout to their end.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Sleep;

use super::{
    failure::Failure,
    forward::count_grpc,
    replay::{Filled, Replay},
    timeout,
    timing::Timing,
    upstream_log::AttemptLog,
};
use crate::{
    http::{Body, BodyError, StreamInfo, stream_info::Progress},
    stats::Stats,
    upstream::{ClusterStats, Host, UpstreamFailure},
};

/// The request's body, for one attempt or for several.
pub(super) enum Bodies {
    /// None at all.
    Empty,
    /// One that goes with the first attempt.
    Once(RefCell<Body>),
    /// One that is kept.
    Kept(Replay),
}

impl Bodies {
    pub(super) fn new(body: Body, keep: bool, limit: u64, stats: Stats<ClusterStats>) -> Self {
        match body {
            Body::Empty => Self::Empty,
            body if keep => Self::Kept(Replay::new(body, limit, stats)),
            body => Self::Once(body.into()),
        }
    }

    /// The body from its first byte.
    pub(super) fn next(&self) -> Body {
        match self {
            Self::Empty => Body::Empty,
            Self::Once(body) => body.take(),
            Self::Kept(replay) => replay.body(),
        }
    }

    /// Whether no body follows the request's head.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Keeps what comes of the body, until there is no more room for it. Never ready.
    pub(super) async fn keep_coming(&self) -> Infallible {
        if let Self::Kept(replay) = self {
            replay.fill().await;
        }
        std::future::pending().await
    }

    /// Keeps what comes of the body; ready once there is no more room for it.
    pub(super) async fn outgrown(&self) {
        match self {
            Self::Kept(replay) => match replay.fill().await {
                Filled::Outgrown => {}
                Filled::Ended => std::future::pending().await,
            },
            Self::Empty | Self::Once(_) => std::future::pending().await,
        }
    }

    /// The copy was given up: no other attempt can be made.
    pub(super) fn abandoned(&self) -> bool {
        matches!(self, Self::Kept(replay) if replay.abandoned())
    }

    /// The whole body once more, when all of it is kept.
    pub(super) fn again(&self) -> Option<Body> {
        match self {
            Self::Empty => Some(Body::Empty),
            Self::Once(_) => None,
            Self::Kept(replay) if replay.abandoned() => None,
            Self::Kept(replay) => Some(replay.body()),
        }
    }

    /// Reads what is there already, up to `limit` bytes, so that it is counted.
    pub(super) fn read_what_came(&self, limit: u64) {
        let mut body = self.next();
        let mut read = 0;
        while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
            read += frame.data_ref().map_or(0, |d| d.len() as u64);
            if read >= limit {
                return;
            }
        }
    }
}

/// A request body as it goes upstream.
pub(super) struct RequestTail {
    inner: Body,
    progress: Rc<Progress>,
}

impl RequestTail {
    pub(super) fn wrap(body: Body, progress: &Rc<Progress>) -> Body {
        let progress = progress.clone();
        if matches!(body, Body::Empty) {
            progress.last_upstream_tx.set(progress.first_upstream_tx.get());
            return body;
        }
        Body::boxed(Self { inner: body, progress })
    }
}

impl HttpBody for RequestTail {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let meter = &this.progress.meters.upstream_sent;
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.progress
                        .upstream_bytes_sent
                        .set(this.progress.upstream_bytes_sent.get() + data.len() as u64);
                    meter.data(data.len());
                }
                if frame.is_trailers() || this.inner.is_end_stream() {
                    meter.end();
                }
            }
            None => meter.end(),
            Some(Err(_)) => {}
        }
        this.progress.last_upstream_tx.set(Some(Instant::now()));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// Never told: `content-length` is what the client sent, not what is known by the time of a retry.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A response body as it comes from upstream.
pub(super) struct UpstreamTail {
    inner: Body,
    progress: Rc<Progress>,
    timing: Timing,
    start: Instant,
    ready: Instant,
    limits: timeout::Limits,
    timer: Option<Pin<Box<Sleep>>>,
    /// Written when the body ends.
    log: Option<Box<AttemptLog>>,
    /// A gRPC request's: its trailers tell whether it succeeded.
    deferred: Option<Arc<Host>>,
}

impl UpstreamTail {
    /// `ready` is when the attempt had its connection.
    pub(super) fn wrap(
        body: Body,
        timing: Timing,
        info: &StreamInfo,
        ready: Instant,
        mut log: Option<Box<AttemptLog>>,
        deferred: Option<Arc<Host>>,
    ) -> Body {
        if matches!(body, Body::Empty) {
            if let Some(log) = &mut log {
                log.complete = true;
            }
            let now = Instant::now();
            info.progress.last_upstream_rx.set(Some(now));
            timing.record(info.start, now, &info.progress);
            return body;
        }
        Body::boxed(Self {
            inner: body,
            progress: info.progress.clone(),
            start: info.start,
            ready,
            limits: timing.limits,
            timing,
            timer: None,
            log,
            deferred,
        })
    }

    /// The limit that runs out next, as things are now.
    fn next_limit(&self) -> Option<(Instant, Failure)> {
        let progress = &self.progress;
        let active = progress.last_activity.get().map_or(self.ready, |at| at.max(self.ready));
        [
            self.limits
                .global
                .map(|d| (timeout::due(d, progress), Failure::Timeout)),
            self.limits.per_try_idle.map(|d| (active + d, Failure::PerTryIdle)),
            self.limits.max_duration.map(|d| (self.ready + d, Failure::MaxDuration)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// The limits hold for the whole response; the timer is armed only while there is something to wait for.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let Some((due, failure)) = self.next_limit() else {
                return Poll::Pending;
            };
            let waits_for_request = matches!(failure, Failure::Timeout) && !self.progress.request_complete.get();
            if due <= Instant::now() && !waits_for_request {
                return Poll::Ready(failure);
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
            if timer.deadline() != due.into() {
                timer.as_mut().reset(due.into());
            }
            std::task::ready!(timer.as_mut().poll(cx));
        }
    }
}

impl HttpBody for UpstreamTail {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if let Some(log) = &mut this.log {
                    log.poll_due(cx, |_| {});
                }
                let failure = std::task::ready!(this.poll_limits(cx));
                failure.count(this.timing.cluster.local());
                if let Some(log) = &mut this.log {
                    log.note_late(&failure);
                }
                return Poll::Ready(Some(Err(failure.late())));
            }
        };
        if let Some(Err(error)) = &frame {
            let failure = Failure::Upstream(UpstreamFailure::of_body(error));
            if let Some(log) = &mut this.log {
                log.note_late(&failure);
            }
            return Poll::Ready(Some(Err(failure.late())));
        }
        let now = Instant::now();
        let mut ended = frame.is_none();
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                this.progress
                    .upstream_bytes_received
                    .set(this.progress.upstream_bytes_received.get() + data.len() as u64);
                this.progress.meters.upstream_received.data(data.len());
                if this.progress.first_upstream_rx_body.get().is_none() {
                    this.progress.first_upstream_rx_body.set(Some(now));
                }
            }
            if let (Some(trailers), Some(host)) = (frame.trailers_ref(), this.deferred.take()) {
                count_grpc(&host, trailers);
            }
            if let (Some(trailers), Some(log)) = (frame.trailers_ref(), &mut this.log) {
                log.note_trailers(trailers);
            }
            ended = this.inner.is_end_stream() || frame.is_trailers();
        }
        if ended && let Some(log) = &mut this.log {
            log.complete = true;
        }
        if ended || matches!(&frame, Some(Ok(f)) if f.is_trailers()) {
            this.progress.meters.upstream_received.end();
        }
        if ended && let Some(host) = this.deferred.take() {
            count_grpc(&host, &HeaderMap::new());
        }
        if ended && this.progress.last_upstream_rx.get().is_none() {
            this.progress.last_upstream_rx.set(Some(now));
            this.timing.record(this.start, now, &this.progress);
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
