//! One attempt: a connection, the request over it, the head of its response.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;

use super::{
    body::{Bodies, RequestTail},
    failure::Failure,
    forward::Request,
    timeout,
};
use crate::{
    http::{Body, RequestHead, ResponseHead, filter::FilterCx, stream_info::Progress},
    net::{Deadline, Stream},
    upstream::{Host, HostResult, PoolOptions, UpstreamConnInfo},
};

/// What an attempt brought.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) body: Body,
    pub(super) upgrade: Option<LocalBoxFuture<'static, Option<Stream>>>,
    /// When the attempt had its connection: its own limits run from here.
    pub(super) ready: Instant,
}

/// Sends the request to `host` and waits for the response's head.
pub(super) async fn run(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &RequestHead,
    host: &Arc<Host>,
    bodies: &mut Bodies,
) -> Result<Box<Answer>, Failure> {
    let options = PoolOptions {
        priority: request.priority,
        downstream: cx.info.protocol,
        transport: request.transport.clone(),
    };
    let lease = request
        .cluster
        .http(host, &options)
        .acquire()
        .await
        .map_err(Failure::Connect)?;
    note(cx, lease.conn());
    request.count(|stats| &stats.upstream_rq_total);
    request.cluster.report(host, HostResult::Connected);
    let ready = Instant::now();
    cx.info.progress.first_upstream_tx.set(Some(ready));
    cx.info.progress.upstream_bytes_sent.set(0);
    let body = RequestTail::wrap(bodies.next(), &cx.info);
    let informational = cx.informational.clone();
    let mut inform = |head: ResponseHead| {
        request.informed(head.status);
        informational.send(head);
    };
    let sent = lease.send(head.clone(), body, &mut inform);
    let limits = &request.limits;
    let response = if limits.per_try.is_none() && limits.per_try_idle.is_none() && limits.max_duration.is_none() {
        sent.await.map_err(Failure::Upstream)?
    } else {
        let progress = cx.info.progress.clone();
        let mut per_try = pin!(timeout::expire(limits.per_try, Some(ready), progress.clone()));
        let mut idle = pin!(stand_still(limits.per_try_idle, ready, &progress));
        let mut longest = pin!(after(limits.max_duration, ready));
        tokio::select! {
            biased;
            response = sent => response.map_err(Failure::Upstream)?,
            () = per_try.as_mut() => return Err(Failure::PerTryTimeout),
            () = idle.as_mut() => return Err(Failure::PerTryIdle),
            () = longest.as_mut() => return Err(Failure::MaxDuration),
        }
    };
    note(cx, &response.conn);
    cx.info.progress.first_upstream_rx.set(Some(Instant::now()));
    Ok(Box::new(Answer {
        head: response.head,
        body: response.body.into(),
        upgrade: response.upgrade,
        ready,
    }))
}

fn note(cx: &mut FilterCx, conn: &UpstreamConnInfo) {
    let upstream = &mut cx.info.upstream;
    upstream.local_address = Some(conn.local_address.clone());
    upstream.remote_address = Some(conn.remote_address.clone());
    upstream.protocol = Some(conn.protocol);
    upstream.tls.clone_from(&conn.tls);
    if let Some(previous) = upstream.connection_id.replace(conn.id).filter(|id| *id != conn.id) {
        upstream.earlier_connections.push(previous);
    }
    upstream.pool_ready = Some(conn.connect_time);
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
        if due <= Instant::now() {
            return;
        }
        Deadline::at(due).await;
    }
}
