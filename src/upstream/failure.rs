//! What can go wrong on the way to an upstream, in Envoy's words.

use std::sync::Arc;

use crate::http::{BodyError, Flag};

/// Why no connection could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// A circuit breaker is open, or the queue of pending requests is full: `UO`. No host was reached.
    #[error("overflow")]
    Overflow,
    /// There is a connection, but `max_requests` requests are in flight: `UO`.
    #[error("overflow")]
    TooManyRequests,
    /// `connect_timeout` passed before the transport socket was connected: `UF`.
    #[error("connection timeout")]
    Timeout,
    /// The other side refused or could not be reached: `UF`.
    #[error("remote connection failure: {reason}")]
    Remote {
        /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; empty when Envoy has none.
        reason: Arc<str>,
    },
    /// This side could not connect: no route, bind failure, a cluster on its way out. `UF`.
    #[error("local connection failure: {reason}")]
    Local {
        /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; empty when Envoy has none.
        reason: Arc<str>,
    },
}

impl ConnectFailure {
    /// Envoy's reset reason, as the local reply's body and `response_code_details` name it.
    pub fn reset_reason(&self) -> &'static str {
        match self {
            Self::Overflow | Self::TooManyRequests => "overflow",
            Self::Timeout => "connection timeout",
            Self::Remote { .. } => "remote connection failure",
            Self::Local { .. } => "local connection failure",
        }
    }

    /// Whether a circuit breaker refused.
    pub fn is_overflow(&self) -> bool {
        matches!(self, Self::Overflow | Self::TooManyRequests)
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, when there is one.
    pub fn transport_failure_reason(&self) -> Option<&str> {
        match self {
            Self::Remote { reason } | Self::Local { reason } if !reason.is_empty() => Some(reason),
            _ => None,
        }
    }
}

/// Why a request that had a connection got no (complete) response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamFailure {
    /// A stale connection was replaced before anything was sent, and no other could be had.
    #[error(transparent)]
    Connect(#[from] ConnectFailure),
    /// The upstream reset the stream (`RST_STREAM`): `UR`.
    #[error("remote reset")]
    RemoteReset,
    /// The upstream refused the stream before it looked at it (`REFUSED_STREAM`): `UR`, always safe to retry.
    #[error("remote refused stream reset")]
    RemoteRefusedStream,
    /// The connection closed: `UC`.
    #[error("connection termination")]
    ConnectionTermination,
    /// The response could not be understood: `UPE`.
    #[error("protocol error: {0}")]
    ProtocolError(Arc<str>),
    /// The request's own body failed: the downstream went away, or a filter gave up.
    #[error("request body: {0}")]
    RequestBody(Arc<str>),
}

impl UpstreamFailure {
    /// Envoy's reset reason, as the local reply's body and `response_code_details` name it.
    pub fn reset_reason(&self) -> &'static str {
        match self {
            Self::Connect(failure) => failure.reset_reason(),
            Self::RemoteReset => "remote reset",
            Self::RemoteRefusedStream => "remote refused stream reset",
            Self::ConnectionTermination => "connection termination",
            Self::ProtocolError(_) => "protocol error",
            Self::RequestBody(_) => "local reset",
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, when there is one.
    pub fn transport_failure_reason(&self) -> Option<&str> {
        match self {
            Self::Connect(failure) => failure.transport_failure_reason(),
            _ => None,
        }
    }
}

/// Sorts a codec's error.
impl From<&hyper::Error> for UpstreamFailure {
    fn from(error: &hyper::Error) -> Self {
        if let Some(h2) = find_source::<h2::Error>(error) {
            return Self::of_http2(h2);
        }
        if error.is_parse() {
            return Self::ProtocolError(error.to_string().into());
        }
        if error.is_user() || error.is_body_write_aborted() {
            return Self::RequestBody(error.to_string().into());
        }
        Self::ConnectionTermination
    }
}

impl UpstreamFailure {
    /// Sorts an error of the HTTP/2 codec.
    pub fn of_http2(error: &h2::Error) -> Self {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Self::RemoteRefusedStream,
            // A stream above the last one of a GOAWAY was not looked at.
            _ if error.is_go_away() && error.is_remote() => Self::RemoteRefusedStream,
            Some(h2::Reason::PROTOCOL_ERROR) if error.is_reset() && error.is_remote() => {
                Self::ProtocolError(error.to_string().into())
            }
            _ if error.is_reset() && error.is_remote() => Self::RemoteReset,
            Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR | h2::Reason::COMPRESSION_ERROR) => {
                Self::ProtocolError(error.to_string().into())
            }
            _ => Self::ConnectionTermination,
        }
    }

    /// Sorts the error of a response body. HTTP/1 knows no reset: what ends before its end is malformed.
    pub fn of_body(error: &BodyError) -> Self {
        match error {
            BodyError::Codec(error) if find_source::<h2::Error>(error).is_some() => error.into(),
            BodyError::Codec(error) => Self::ProtocolError(error.to_string().into()),
            BodyError::Http2(error) => Self::of_http2(error),
            BodyError::Protocol(error) => Self::ProtocolError(error.as_ref().into()),
            BodyError::Upstream {
                flag: Flag::UpstreamConnectionTermination,
                ..
            } => Self::ConnectionTermination,
            other => Self::RequestBody(other.to_string().into()),
        }
    }
}

fn find_source<'e, E: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
