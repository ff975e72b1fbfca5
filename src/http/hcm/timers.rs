//! The timers of a stream before its response starts.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{StatusCode, Version};

use super::{complete::Active, connection::HcmConnection};
use crate::{
    http::{Flag, LocalReply, codec::Handler, grpc, stream_info::Progress},
    net::Deadline,
    server::overload::ScaledTimer,
};

/// The timers of a stream before its response starts. One is armed at a time.
pub(super) struct Timers {
    hcm: Rc<HcmConnection>,
    /// In full: it may run out sooner under overload.
    idle: Option<Duration>,
    request: Option<Duration>,
    longest: Option<Duration>,
    start: Instant,
    progress: Rc<Progress>,
}

impl Timers {
    /// Those of a stream that has its route.
    pub(super) fn of(active: &mut Active) -> Self {
        Self {
            hcm: active.hcm.clone(),
            idle: active.full_idle_timeout(),
            request: active.hcm.config.request_timeout,
            longest: longest(active),
            start: active.cx.info.start,
            progress: active.cx.info.progress.clone(),
        }
    }

    /// When the stream has taken too long, however it moves.
    pub(super) fn end(&self) -> Option<Instant> {
        self.longest.and_then(|d| self.start.checked_add(d))
    }

    /// Waits for the first timer that runs out; for ever when there is none.
    pub(super) async fn expire(self) -> Box<LocalReply> {
        let mut armed = None;
        poll_fn(|cx| self.poll(&mut armed, cx)).await
    }

    /// What is armed is left to run out early rather than moved.
    fn poll(&self, armed: &mut Option<(Instant, Deadline)>, cx: &mut Context<'_>) -> Poll<Box<LocalReply>> {
        loop {
            let now = Instant::now();
            let active = self.progress.last_activity.get().unwrap_or(self.start);
            let idle = self.idle.map(|d| active + self.hcm.scaled(ScaledTimer::StreamIdle, d));
            let request = self
                .request
                .filter(|_| !self.progress.request_complete.get())
                .map(|d| self.start + d);
            let longest = self.longest.map(|d| self.start + d);
            let next = [idle, request, longest].into_iter().flatten().min();
            // Whose fault it is: the upstream's once the request is whole.
            let status = if self.progress.request_complete.get() {
                StatusCode::GATEWAY_TIMEOUT
            } else {
                StatusCode::REQUEST_TIMEOUT
            };
            match next {
                None => return Poll::Pending,
                Some(next) if next > now => {
                    if armed.as_ref().is_none_or(|(at, _)| *at > next) {
                        *armed = Some((next, Deadline::at(next)));
                    }
                    if let Some((_, deadline)) = armed {
                        ready!(Pin::new(deadline).poll(cx));
                    }
                    *armed = None;
                }
                Some(next) if Some(next) == idle => {
                    return Poll::Ready(Box::new(
                        LocalReply::new(status, "stream timeout", "stream_idle_timeout").flag(Flag::StreamIdleTimeout),
                    ));
                }
                Some(next) if Some(next) == request => {
                    return Poll::Ready(Box::new(LocalReply::new(
                        StatusCode::REQUEST_TIMEOUT,
                        "request timeout",
                        "request_overall_timeout",
                    )));
                }
                Some(_) => {
                    let mut reply = LocalReply::new(status, "downstream duration timeout", "max_duration_timeout");
                    reply.grpc_status = Some(grpc::DEADLINE_EXCEEDED);
                    return Poll::Ready(Box::new(reply));
                }
            }
        }
    }
}

/// `max_stream_duration`: the route's, which `grpc-timeout` may shorten, or else the connection manager's; zero means
/// none. The upstream of a gRPC request is told what it comes to.
fn longest(active: &mut Active) -> Option<Duration> {
    let of_route = active
        .cx
        .route
        .as_ref()
        .and_then(|r| r.forward()?.timeouts.max_stream_duration);
    let config = &active.hcm.config;
    let Some(of_route) = of_route else {
        return config.max_stream_duration;
    };
    let asked = active
        .head
        .headers
        .get(&grpc::GRPC_TIMEOUT)
        .and_then(grpc::parse_timeout);
    let timeout = match (asked, of_route.grpc_max) {
        (Some(asked), Some(max)) => {
            let capped = if max.is_zero() { asked } else { asked.min(max) };
            // Nothing left of a timeout is a timeout nonetheless.
            Some(capped.saturating_sub(of_route.grpc_offset.unwrap_or_default()))
        }
        _ => match of_route.max {
            Some(max) => Some(max).filter(|d| !d.is_zero()),
            None => config.max_stream_duration,
        },
    };
    if let Some(timeout) = timeout
        && active.head.is_grpc()
    {
        active
            .head
            .headers
            .insert(grpc::GRPC_TIMEOUT, grpc::timeout_value(timeout));
    }
    timeout
}

/// Counts a timer that ran out; a request that did not come whole leaves nothing to go on with.
pub(super) fn note_expiry(active: &mut Active, reply: &LocalReply) {
    let stats = active.hcm.stats();
    match &*reply.details {
        "stream_idle_timeout" => stats.downstream_rq_idle_timeout.inc(),
        "request_overall_timeout" => stats.downstream_rq_timeout.inc(),
        _ => stats.downstream_rq_max_duration_reached.inc(),
    }
    if active.head.version < Version::HTTP_2 && !active.cx.info.progress.request_complete.get() {
        active.close = true;
    }
}
