//! A response that the proxy itself gives.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Flag;

/// What `sendLocalReply` takes: status, body, response-code details, flag, and headers to add.
///
/// The connection manager turns it into a gRPC status for gRPC requests, applies
/// `local_reply_config` and runs it through the encoder filters.
#[derive(Debug, Clone)]
pub struct LocalReply {
    /// HTTP status.
    pub status: StatusCode,
    /// Body; `content-type: text/plain` unless `headers` says otherwise. Empty: no body.
    pub body: Bytes,
    /// `%RESPONSE_CODE_DETAILS%`, for example `route_not_found`.
    pub details: Cow<'static, str>,
    /// The flag it sets, if any.
    pub flag: Option<Flag>,
    /// Headers added to the response.
    pub headers: HeaderMap,
    /// The gRPC status to use for gRPC requests instead of the one mapped from `status`.
    pub grpc_status: Option<u32>,
    /// Sent as it is: not for `local_reply_config`, and never as a gRPC status.
    pub verbatim: bool,
}

impl LocalReply {
    /// A reply without flag and extra headers.
    pub fn new(status: StatusCode, body: impl Into<Bytes>, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: body.into(),
            details: details.into(),
            flag: None,
            headers: HeaderMap::new(),
            grpc_status: None,
            verbatim: false,
        }
    }

    /// Sets the response flag.
    pub fn flag(mut self, flag: Flag) -> Self {
        self.flag = Some(flag);
        self
    }
}
