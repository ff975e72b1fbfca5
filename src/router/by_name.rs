//! Clusters that find the host of a request by its name: the dynamic forward proxy.

use super::request::Request;
use crate::{
    http::{LocalReply, RequestHead, filter::FilterCx},
    upstream::dynamic_forward_proxy::dynamic_host,
};

/// Waits until the host is known, where the cluster goes by it. The host that counts is the one that the upstream will
/// see, so the head is finalized first; tells whether it was.
pub(super) async fn prepare(
    request: &Request<'_>,
    cx: &FilterCx,
    head: &mut RequestHead,
) -> Result<bool, Box<LocalReply>> {
    let info = &request.cluster.info;
    let Some(forward_proxy) = info.dynamic_forward_proxy() else {
        return Ok(false);
    };
    let keep_original = !request.config.suppress_envoy_headers;
    request.route.finalize_request_headers(head, &cx.info, keep_original);
    let (host, port) = dynamic_host(Some(head), &cx.info, info.default_port());
    match forward_proxy.prepare(&host, port, &cx.worker.server).await {
        Ok(()) => Ok(true),
        Err(details) => {
            let mut reply = request.no_healthy_upstream(cx);
            reply.details = details.into();
            Err(reply)
        }
    }
}
