//! Request mirroring: copies to other clusters, whose answers nobody waits for.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::request::Request;
use crate::{
    http::{Body, BodyError, RequestHead, filter::FilterCx},
    route::MirrorPolicy,
    tracing::CallSpan,
    upstream::{LbContext, PoolOptions, WorkerCluster},
};

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Sends the copies that the route asks for. The body comes back as the first request is to read it: what it reads,
/// the copies get. A copy that falls more than `limit` bytes behind is given up.
pub(super) fn send(request: &Request<'_>, head: &RequestHead, body: Body, limit: u64, cx: &FilterCx) -> Body {
    if request.mirrors().is_empty() || head.method == Method::CONNECT {
        return body;
    }
    let mut copies = Vec::new();
    for policy in request.mirrors() {
        if !policy.fraction.roll() {
            continue;
        }
        let Some(cluster) = cluster(policy, head, cx) else {
            continue;
        };
        let mut copy = copy_of(policy, head, request, cx);
        let info = &cluster.info;
        let span = CallSpan::mirror(cx.span.as_ref(), &info.name, &info.observability_name);
        let span = span.silent_if(policy.trace_sampled == Some(false));
        span.inject(&mut copy.headers);
        let body = match body {
            Body::Empty => Body::Empty,
            _ => {
                let queue = Rc::new(RefCell::new(Queue::default()));
                copies.push(queue.clone());
                Body::boxed(CopyBody(queue))
            }
        };
        let dynamic_stats = request.config.dynamic_stats;
        let limit = request.limits.global;
        tokio::task::spawn_local(async move {
            let sent = deliver(&cluster, copy, body, dynamic_stats, span);
            match limit {
                None => sent.await,
                // Whoever waits for ever for an answer nobody reads only holds memory.
                Some(limit) => {
                    if tokio::time::timeout(limit, sent).await.is_err() {
                        cluster.info.stats.local().upstream_rq_timeout.inc();
                        charge(&cluster, 504, dynamic_stats);
                    }
                }
            }
        });
    }
    match copies.is_empty() {
        true => body,
        false => Body::boxed(Tee {
            inner: body,
            copies,
            limit,
        }),
    }
}

fn cluster(policy: &MirrorPolicy, head: &RequestHead, cx: &FilterCx) -> Option<Rc<WorkerCluster>> {
    match &policy.cluster_header {
        None => cx.worker.clusters.get(&policy.cluster),
        Some(header) => {
            let name = std::str::from_utf8(header.first(head)?).ok()?;
            cx.worker.clusters.get(name)
        }
    }
}

/// The copy's head: a request of this proxy's own, from inside.
fn copy_of(policy: &MirrorPolicy, head: &RequestHead, request: &Request<'_>, cx: &FilterCx) -> RequestHead {
    let mut copy = head.clone();
    if let Some(host) = &policy.host_rewrite {
        copy.authority = Some(host.clone());
    } else if !policy.disable_host_suffix {
        let host = copy.host();
        let shadowed = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => format!("{name}-shadow:{port}"),
            _ => format!("{host}-shadow"),
        };
        copy.authority = HeaderValue::from_str(&shadowed).ok();
    }
    copy.headers.insert(INTERNAL, HeaderValue::from_static("true"));
    let address = &request.config.local_address;
    let forwarded = match copy.headers.get(FORWARDED_FOR) {
        Some(list) => HeaderValue::from_bytes(&[list.as_bytes(), b",", address.as_bytes()].concat()).ok(),
        None => None,
    };
    copy.headers
        .insert(FORWARDED_FOR, forwarded.unwrap_or_else(|| address.clone()));
    policy.mutations.run(&mut copy, &cx.info);
    copy
}

fn charge(cluster: &WorkerCluster, status: u16, dynamic_stats: bool) {
    if dynamic_stats {
        cluster.info.codes.charge(status, true);
    }
}

async fn deliver(cluster: &Rc<WorkerCluster>, head: RequestHead, body: Body, dynamic_stats: bool, span: CallSpan) {
    let charge = |status: u16| charge(cluster, status, dynamic_stats);
    let Some(host) = cluster.pick(&LbContext::default()) else {
        return charge(503);
    };
    let Ok(lease) = cluster.http(&host, &PoolOptions::default()).acquire().await else {
        return charge(503);
    };
    match lease.send(head, body, &mut |_| {}).await {
        Ok(response) => {
            let status = response.head.status.as_u16();
            charge(status);
            span.http_answer(status, response.conn.protocol, &response.conn.remote_address);
            let mut body: Body = response.body.into();
            while let Some(Ok(_)) = body.frame().await {}
        }
        Err(_) => charge(503),
    }
}

/// What a copy has not sent yet.
#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame<Bytes>>,
    bytes: u64,
    complete: bool,
    /// The request ended before its end, or the copy fell too far behind.
    broken: bool,
    waker: Option<Waker>,
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The body of the request, which feeds the copies.
struct Tee {
    inner: Body,
    copies: Vec<Rc<RefCell<Queue>>>,
    limit: u64,
}

impl Tee {
    fn feed(&self, frame: &Frame<Bytes>) {
        for copy in &self.copies {
            let mut queue = copy.borrow_mut();
            let frame = match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => Frame::data(data.clone()),
                (None, Some(trailers)) => Frame::trailers(trailers.clone()),
                (None, None) => continue,
            };
            queue.bytes += frame.data_ref().map_or(0, |d| d.len() as u64);
            if queue.bytes > self.limit {
                queue.broken = true;
                queue.frames.clear();
            } else {
                queue.frames.push_back(frame);
            }
            queue.wake();
        }
    }

    fn finish(&mut self, complete: bool) {
        for copy in self.copies.drain(..) {
            let mut queue = copy.borrow_mut();
            queue.complete |= complete;
            queue.broken |= !complete;
            queue.wake();
        }
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.finish(false);
    }
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.feed(frame);
                if this.inner.is_end_stream() {
                    this.finish(true);
                }
            }
            None => this.finish(true),
            Some(Err(_)) => this.finish(false),
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

/// The body of a copy.
struct CopyBody(Rc<RefCell<Queue>>);

impl HttpBody for CopyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = self.0.borrow_mut();
        if queue.broken {
            return Poll::Ready(Some(Err(BodyError::Reset("mirrored request given up"))));
        }
        match queue.frames.pop_front() {
            Some(frame) => {
                queue.bytes -= frame.data_ref().map_or(0, |d| d.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            None if queue.complete => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
