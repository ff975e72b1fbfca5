//! One attempt: a connection, the request over it, the head of its response.

use futures_util::future::LocalBoxFuture;
use std::{sync::Arc, time::Instant};

use super::{failure::Failure, forward::Request};
use crate::{
    http::{Body, RequestHead, ResponseHead, filter::FilterCx},
    net::Stream,
    upstream::{Host, PoolOptions},
};

/// What an attempt brought.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) body: Body,
    pub(super) upgrade: Option<LocalBoxFuture<'static, Option<Stream>>>,
}

/// Sends the request to `host` and waits for the response's head.
pub(super) async fn run(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &RequestHead,
    host: &Arc<Host>,
    body: Body,
) -> Result<Box<Answer>, Failure> {
    match request.limits.per_try {
        None => send(request, cx, head, host, body).await,
        Some(limit) => match tokio::time::timeout(limit, send(request, cx, head, host, body)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::PerTryTimeout),
        },
    }
}

async fn send(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &RequestHead,
    host: &Arc<Host>,
    body: Body,
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
    let note = |cx: &mut FilterCx, conn: &crate::upstream::UpstreamConnInfo| {
        let upstream = &mut cx.info.upstream;
        upstream.local_address = Some(conn.local_address.clone());
        upstream.remote_address = Some(conn.remote_address.clone());
        upstream.protocol = Some(conn.protocol);
        upstream.tls.clone_from(&conn.tls);
        if let Some(previous) = upstream.connection_id.replace(conn.id).filter(|id| *id != conn.id) {
            upstream.earlier_connections.push(previous);
        }
        upstream.pool_ready = Some(conn.connect_time);
    };
    note(cx, lease.conn());
    cx.info.progress.first_upstream_tx.set(Some(Instant::now()));
    let body = super::body::RequestTail::wrap(body, &cx.info);
    let response = lease.send(head.clone(), body).await.map_err(Failure::Upstream)?;
    note(cx, &response.conn);
    cx.info.progress.first_upstream_rx.set(Some(Instant::now()));
    Ok(Box::new(Answer {
        head: response.head,
        body: response.body.into(),
        upgrade: response.upgrade,
    }))
}
