//! Bodies on the upstream's side: counted, timed, and held to the route's timeout to their end.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::{forward::Request, timeout};
use crate::{
    http::{Body, BodyError, StreamInfo, stream_info::Progress},
    stats::Stats,
    upstream::ClusterStats,
};

/// A request body as it goes upstream.
pub(super) struct RequestTail {
    inner: Body,
    progress: Rc<Progress>,
}

impl RequestTail {
    pub(super) fn wrap(body: Body, info: &StreamInfo) -> Body {
        let progress = info.progress.clone();
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
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.progress
                .upstream_bytes_sent
                .set(this.progress.upstream_bytes_sent.get() + data.len() as u64);
        }
        this.progress.last_upstream_tx.set(Some(Instant::now()));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body as it comes from upstream.
pub(super) struct UpstreamTail {
    inner: Body,
    progress: Rc<Progress>,
    stats: Stats<ClusterStats>,
    start: Instant,
    limit: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl UpstreamTail {
    pub(super) fn wrap(body: Body, request: &Request<'_>, info: &StreamInfo) -> Body {
        let stats = request.cluster.info.stats.clone();
        if matches!(body, Body::Empty) {
            let now = Instant::now();
            info.progress.last_upstream_rx.set(Some(now));
            record(&stats, info.start, now);
            return body;
        }
        Body::boxed(Self {
            inner: body,
            progress: info.progress.clone(),
            stats,
            start: info.start,
            limit: request.limits.global,
            timer: None,
        })
    }

    /// The route's timeout holds for the whole response; the timer is armed only while there is something to wait for.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let progress = &self.progress;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(timeout::due(limit, progress).into())));
        std::task::ready!(timer.as_mut().poll(cx));
        let due = timeout::due(limit, progress);
        if progress.request_complete.get() && due <= Instant::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(due.into());
        timer.as_mut().poll(cx)
    }
}

fn record(stats: &Stats<ClusterStats>, start: Instant, now: Instant) {
    stats
        .local()
        .upstream_rq_time
        .record(u64::try_from(now.duration_since(start).as_millis()).unwrap_or(u64::MAX));
}

impl HttpBody for UpstreamTail {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                std::task::ready!(this.poll_timeout(cx));
                this.stats.local().upstream_rq_timeout.inc();
                return Poll::Ready(Some(Err(BodyError::UpstreamTimeout)));
            }
        };
        let now = Instant::now();
        let mut ended = frame.is_none();
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                this.progress
                    .upstream_bytes_received
                    .set(this.progress.upstream_bytes_received.get() + data.len() as u64);
            }
            ended = this.inner.is_end_stream();
        }
        if ended && this.progress.last_upstream_rx.get().is_none() {
            this.progress.last_upstream_rx.set(Some(now));
            record(&this.stats, this.start, now);
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
