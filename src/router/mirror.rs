//! Request mirroring: a copy to another cluster, whose answer nobody waits for.

use std::sync::Arc;

use http::HeaderValue;
use http_body_util::BodyExt;

use crate::{
    http::{Body, RequestHead, filter::FilterCx},
    route::{MirrorPolicy, RouteAction},
    upstream::{LbContext, PoolOptions},
};

/// Sends the copies that the route asks for. A request with a body is copied without it.
pub(super) fn send(action: &RouteAction, head: &RequestHead, _empty: bool, cx: &FilterCx) {
    for policy in action.mirrors.iter() {
        if policy.fraction.roll() {
            one(policy, head, cx);
        }
    }
}

fn one(policy: &MirrorPolicy, head: &RequestHead, cx: &FilterCx) {
    let name: Arc<str> = match &policy.cluster_header {
        None => policy.cluster.clone(),
        Some(header) => match header.get(head) {
            Some(name) => String::from_utf8_lossy(&name).as_ref().into(),
            None => return,
        },
    };
    let Some(cluster) = cx.worker.clusters.get(&name) else {
        return;
    };
    let mut copy = head.clone();
    if !policy.disable_host_suffix {
        let host = copy.host();
        let shadowed = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => format!("{name}-shadow:{port}"),
            _ => format!("{host}-shadow"),
        };
        copy.authority = HeaderValue::from_str(&shadowed).ok();
    }
    if let Some(host) = &policy.host_rewrite {
        copy.authority = Some(host.clone());
    }
    copy.headers.remove(http::header::CONTENT_LENGTH);
    tokio::task::spawn_local(async move {
        let Some(host) = cluster.pick(&LbContext::default()) else {
            return;
        };
        let Ok(lease) = cluster.http(&host, &PoolOptions::default()).acquire().await else {
            return;
        };
        if let Ok(response) = lease.send(copy, Body::Empty).await {
            let mut body: Body = response.body.into();
            while let Some(Ok(_)) = body.frame().await {}
        }
    });
}
