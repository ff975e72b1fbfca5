//! Requests that are refused under overload: only their head is looked at, and no filter sees them.

use http::{HeaderName, HeaderValue, StatusCode, Version};

use super::{complete::Active, mutate, request::early_route};
use crate::{
    http::{LocalReply, inline_headers},
    server::overload::{Action, Point},
};

const LOCAL_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-local-overloaded");

/// The answer to a request that the overload manager does not let in.
pub(super) fn refusal(active: &mut Active) -> Option<Box<LocalReply>> {
    let overload = active.hcm.overload.clone()?;
    if !overload.sheds(Point::HcmDecodeHeaders) && !overload.takes(Action::StopAcceptingRequests) {
        return None;
    }
    let head = &mut active.head;
    if head.version == Version::HTTP_2 {
        mutate::join_cookies(&mut head.headers);
    }
    inline_headers::join_request(&mut head.headers);
    active.grpc = head.is_grpc();
    early_route(active);
    active.hcm.stats().downstream_rq_overload_close.inc();
    let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "envoy overloaded", "overload");
    if active.hcm.config.append_local_overload {
        reply.headers.insert(LOCAL_OVERLOADED, HeaderValue::from_static("true"));
    }
    Some(Box::new(reply))
}
