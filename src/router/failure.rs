//! Everything that can go wrong upstream, and what a client, a log and a retry policy see of it: one table.

use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    http::{Flag, LocalReply},
    upstream::{ConnectFailure, UpstreamFailure},
};

/// Why an attempt gave no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection.
    Connect(ConnectFailure),
    /// A connection, and then no response.
    Upstream(UpstreamFailure),
    /// The route's timeout.
    Timeout,
    /// The retry policy's `per_try_timeout`.
    PerTryTimeout,
}

impl Failure {
    /// The response flag.
    pub(super) fn flag(&self) -> Flag {
        match self {
            Self::Connect(f) | Self::Upstream(UpstreamFailure::Connect(f)) => match f {
                ConnectFailure::Overflow => Flag::UpstreamOverflow,
                _ => Flag::UpstreamConnectionFailure,
            },
            Self::Upstream(f) => match f {
                UpstreamFailure::RemoteReset | UpstreamFailure::RemoteRefusedStream => Flag::UpstreamRemoteReset,
                UpstreamFailure::ProtocolError(_) => Flag::UpstreamProtocolError,
                UpstreamFailure::RequestBody(_) => Flag::LocalReset,
                UpstreamFailure::ConnectionTermination | UpstreamFailure::Connect(_) => {
                    Flag::UpstreamConnectionTermination
                }
            },
            Self::Timeout | Self::PerTryTimeout => Flag::UpstreamRequestTimeout,
        }
    }

    /// What the client is answered when this was the last attempt.
    pub(super) fn reply(&self, retried: bool) -> LocalReply {
        let (reason, transport) = match self {
            Self::Timeout => {
                return LocalReply::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "upstream request timeout",
                    "response_timeout",
                )
                .flag(self.flag());
            }
            Self::PerTryTimeout => {
                return LocalReply::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "upstream request timeout",
                    "upstream_per_try_timeout",
                )
                .flag(self.flag());
            }
            Self::Connect(f) => (f.reset_reason(), f.transport_failure_reason()),
            Self::Upstream(f) => (f.reset_reason(), f.transport_failure_reason()),
        };
        let status = match self {
            Self::Upstream(UpstreamFailure::ProtocolError(_)) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = format!(
            "upstream connect error or disconnect/reset before headers. {}reset reason: {reason}",
            if retried { "retried and the latest " } else { "" }
        );
        let mut details = format!("upstream_reset_before_response_started{{{reason}");
        if let Some(transport) = transport {
            // The client is not told why; the log is.
            details.push('|');
            details.push_str(transport);
        }
        details.push('}');
        let mut reply = LocalReply::new(status, body, details.replace(' ', "_")).flag(self.flag());
        if matches!(self, Self::Connect(ConnectFailure::Overflow)) {
            reply.headers.insert(
                HeaderName::from_static("x-envoy-overloaded"),
                HeaderValue::from_static("true"),
            );
        }
        reply
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    pub(super) fn transport_failure(&self) -> Option<&str> {
        match self {
            Self::Connect(f) => f.transport_failure_reason(),
            Self::Upstream(f) => f.transport_failure_reason(),
            Self::Timeout | Self::PerTryTimeout => None,
        }
    }
}
