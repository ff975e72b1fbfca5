//! What can go wrong on the way to an upstream, in Envoy's words.

use std::sync::Arc;

use crate::http::BodyError;

/// Why no connection could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// A circuit breaker is open, or the queue of pending requests is full: `UO`.
    #[error("overflow")]
    Overflow,
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
            Self::Overflow => "overflow",
            Self::Timeout => "connection timeout",
            Self::Remote { .. } => "remote connection failure",
            Self::Local { .. } => "local connection failure",
        }
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
    RequestBody(BodyError),
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
