//! One attempt: a connection, the request over it, the head of its response.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;
use http::Version;

use super::{
    body::{Bodies, RequestTail},
    failure::Failure,
    request::Request,
    terminate, timeout,
    upstream_filters::{self, UpstreamFilters},
    upstream_log::AttemptLog,
};
use crate::{
    http::{
        Body, LocalReply, RequestHead, ResponseHead,
        filter::FilterCx,
        stream_info::{Meter, Progress, SharedObjects, is_chunked},
    },
    net::{Address, Deadline, Stream},
    upstream::{Host, HostResult, PoolOptions, UpstreamConnInfo},
};

/// What an attempt brought.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) body: Body,
    pub(super) upgrade: Option<LocalBoxFuture<'static, Option<Stream>>>,
    /// When the attempt had its connection: its own limits run from here.
    pub(super) ready: Instant,
    /// What a filter of the upstream's answered instead; the rest says the same then.
    pub(super) local: Option<Box<LocalReply>>,
}

/// Sends the request to `host` and waits for the response's head. `cx` is borrowed for moments only: attempts may
/// run beside each other, and then `late` is set when one is past its time, instead of its end.
pub(super) async fn run(
    request: &Request<'_>,
    cx: &RefCell<&mut FilterCx>,
    shared_head: &RefCell<&mut RequestHead>,
    host: &Arc<Host>,
    bodies: &Bodies,
    late: Option<&Cell<bool>>,
) -> Result<Box<Answer>, Failure> {
    let mut head = shared_head.borrow().clone();
    let mut filters = UpstreamFilters::create(request, &cx.borrow());
    if let Some(filters) = &mut filters {
        let reply = filters.request_headers(&mut head, bodies.is_empty()).await;
        // As in Envoy, what they change stays changed for the attempts after this one.
        **shared_head.borrow_mut() = head.clone();
        if let Some(reply) = reply {
            return Ok(Box::new(upstream_filters::answer_of(reply)));
        }
    }
    let (options, progress, informational) = {
        let cx = cx.borrow();
        let options = PoolOptions {
            priority: request.priority,
            downstream: cx.info.protocol,
            transport: request.transport.clone(),
            connection: Some(cx.info.connection.id),
            source: cx.info.original_source.or(cx.info.connection.original_source),
            shared: SharedObjects::of(&cx.info.filter_state, &cx.info.connection.filter_state.borrow()),
        };
        (options, cx.info.progress.clone(), cx.informational.clone())
    };
    if terminate::applies(request.action, &head) {
        return terminate::run(request, cx, &head, host, bodies, &options).await;
    }
    let pool = request.cluster.http(host, &options);
    if pool.is_refused() {
        return Err(Failure::NoPool);
    }
    let asked = Instant::now();
    let lease = tokio::select! {
        biased;
        lease = pool.acquire() => lease,
        // What comes meanwhile is kept, as far as that goes.
        never = bodies.keep_coming() => match never {},
    };
    cx.borrow_mut().info.upstream.pool_ready = Some(asked.elapsed());
    let lease = lease.map_err(Failure::Connect)?;
    note(&mut cx.borrow_mut(), lease.conn());
    AttemptLog::pool_ready(request.config, &head, &cx.borrow().info);
    request.count(|stats| &stats.upstream_rq_total);
    request.cluster.report(host, HostResult::Connected);
    let ready = Instant::now();
    progress.first_upstream_tx.set(Some(ready));
    progress.upstream_bytes_sent.set(0);
    let mut body = bodies.next();
    if let Some(filters) = &mut filters {
        body = match filters.request_body(&mut head, body).await {
            Ok(body) => body,
            Err(reply) => return Ok(Box::new(upstream_filters::answer_of(reply))),
        };
    }
    meter_sent(lease.conn(), &head, &body, &progress.meters.upstream_sent);
    let body = RequestTail::wrap(body, &progress);
    let sent_head = filters.is_some().then(|| head.clone());
    let mut inform = |head: ResponseHead| {
        // As in Envoy, the first one goes on and counts, and no other.
        if !request.informed.get() {
            request.informed(head.status);
            informational.send(head);
        }
    };
    let sent = lease.send(head, body, &mut inform);
    let limits = &request.limits;
    let response = if limits.per_try.is_none() && limits.per_try_idle.is_none() && limits.max_duration.is_none() {
        sent.await.map_err(Failure::Upstream)?
    } else {
        let mut per_try = pin!(timeout::expire(limits.per_try, Some(ready), progress.clone()));
        let mut idle = pin!(stand_still(limits.per_try_idle, ready, &progress));
        let mut longest = pin!(after(limits.max_duration, ready));
        let mut sent = pin!(sent);
        let mut in_time = true;
        loop {
            tokio::select! {
                biased;
                response = sent.as_mut() => break response.map_err(Failure::Upstream)?,
                () = per_try.as_mut(), if in_time => match late {
                    None => return Err(Failure::PerTryTimeout),
                    Some(late) => {
                        late.set(true);
                        in_time = false;
                    }
                },
                () = idle.as_mut() => return Err(Failure::PerTryIdle),
                () = longest.as_mut() => return Err(Failure::MaxDuration),
            }
        }
    };
    note(&mut cx.borrow_mut(), &response.conn);
    progress.first_upstream_rx.set(Some(Instant::now()));
    let body: Body = response.body.into();
    let meter = &progress.meters.upstream_received;
    meter_received(&response.conn, &response.head, response.head_bytes, &body, meter);
    let mut answer = Answer {
        head: response.head,
        body,
        upgrade: response.upgrade,
        ready,
        local: None,
    };
    if let (Some(filters), Some(sent)) = (filters, sent_head) {
        filters.response(&sent, &mut answer).await;
    }
    Ok(Box::new(answer))
}

pub(super) fn note(cx: &mut FilterCx, conn: &UpstreamConnInfo) {
    let upstream = &mut cx.info.upstream;
    upstream.connected = true;
    // This end of a unix socket has no address.
    upstream.local_address =
        Some(conn.local_address.clone()).filter(|a| !matches!(a, Address::Pipe(p) if p.is_empty()));
    upstream.remote_address = Some(conn.remote_address.clone());
    upstream.protocol = Some(conn.protocol);
    upstream.tls.clone_from(&conn.tls);
    upstream.connection_id = Some(conn.id);
    upstream.connect = Some(conn.times);
    upstream.found.clone_from(&conn.found);
}

/// Counts the head of a request as it is sent.
fn meter_sent(conn: &UpstreamConnInfo, head: &RequestHead, body: &Body, meter: &Meter) {
    let path = head.path.as_ref().map(|p| p.as_str()).unwrap_or_default();
    let authority = head
        .authority
        .as_ref()
        .and_then(|a| a.to_str().ok())
        .unwrap_or_default();
    if conn.protocol >= Version::HTTP_2 {
        let more = [
            (":method", head.method.as_str()),
            (":path", path),
            (":scheme", head.scheme.as_str()),
            (":authority", authority),
        ];
        meter.h2(&head.headers, &more);
        return;
    }
    let line = head.method.as_str().len() + path.len() + " HTTP/1.1 ".len();
    let chunked = is_chunked(&head.headers) && !matches!(body, Body::Empty);
    let more = [("host", authority), ("transfer-encoding", "chunked")];
    let known = head.headers.contains_key(http::header::TRANSFER_ENCODING);
    meter.wrote_h1(
        line as u64,
        &head.headers,
        &more[..if chunked && !known { 2 } else { 1 }],
    );
    meter.chunked.set(chunked);
}

/// Counts the head of a response as it came.
fn meter_received(conn: &UpstreamConnInfo, head: &ResponseHead, bytes: Option<u64>, body: &Body, meter: &Meter) {
    if conn.protocol >= Version::HTTP_2 {
        meter.h2(&head.headers, &[(":status", head.status.as_str())]);
        return;
    }
    let chunked = is_chunked(&head.headers) && !matches!(body, Body::Empty);
    let known = head.headers.contains_key(http::header::TRANSFER_ENCODING);
    let more = [("transfer-encoding", "chunked")];
    meter.read_h1(0, &head.headers, &more[..usize::from(chunked && !known)], bytes);
    meter.chunked.set(chunked);
}

async fn after(limit: Option<Duration>, from: Instant) {
    match limit {
        Some(limit) => Deadline::at(from + limit).await,
        None => std::future::pending().await,
    }
}

/// Waits until nothing of the request has moved for `limit`.
async fn stand_still(limit: Option<Duration>, from: Instant, progress: &Progress) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let due = progress.last_upstream_tx.get().map_or(from, |at| at.max(from)) + limit;
        let now = Instant::now();
        // As Envoy, which has no such limit for an attempt whose request is not complete.
        let due = match progress.request_complete.get() {
            true => due,
            false => due.max(now + limit),
        };
        if due <= now {
            return;
        }
        Deadline::at(due).await;
    }
}
