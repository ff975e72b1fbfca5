//! Answers to what is no request, or stops being one: the codec's table of errors as replies.

use std::rc::Rc;

use super::{complete::Active, connection::HcmConnection, request::Outcome};
use crate::http::{Body, Flag, LocalReply, ResponseHead, codec::CodecError};

/// Answers what never became a request.
pub(super) async fn refuse(hcm: Rc<HcmConnection>, error: CodecError) -> (ResponseHead, Body) {
    let mut active = Active::without_request(hcm);
    let reply = refusal(&mut active, error);
    active.respond(Outcome::Reply(reply)).await
}

/// The codec's table as a reply; the connection ends with it.
pub(super) fn refusal(active: &mut Active, error: CodecError) -> Box<LocalReply> {
    active.close = true;
    let stats = active.hcm.stats();
    match error {
        CodecError::HeadersTimeout => stats.downstream_rq_header_timeout.inc(),
        CodecError::StreamIdle => stats.downstream_rq_idle_timeout.inc(),
        CodecError::Overload => stats.downstream_rq_overload_close.inc(),
        CodecError::Underscore => {
            stats.downstream_cx_protocol_error.inc();
            let codec = active.hcm.config.http1_stats.local();
            codec.requests_rejected_with_underscores_in_headers.inc();
        }
        _ => stats.downstream_cx_protocol_error.inc(),
    }
    Box::new(reply_to(error))
}

/// What is said of an error.
pub(super) fn reply_to(error: CodecError) -> LocalReply {
    let reply = LocalReply::new(error.status(), error.body(), error.details());
    match error {
        CodecError::HeadersTimeout => reply,
        CodecError::StreamIdle => reply.flag(Flag::StreamIdleTimeout),
        _ => reply.flag(Flag::DownstreamProtocolError),
    }
}
