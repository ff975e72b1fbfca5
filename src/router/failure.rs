//! Everything that can go wrong upstream, and what a client, a log and a retry policy see of it: one table.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    http::{BodyError, Flag, LocalReply},
    upstream::{ClusterStats, ConnectFailure, UpstreamFailure},
};

/// Why an attempt gave no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection.
    Connect(ConnectFailure),
    /// No pool to have a connection from: there might as well be no host.
    NoPool,
    /// A connection, and then no response.
    Upstream(UpstreamFailure),
    /// The route's timeout.
    Timeout,
    /// The retry policy's `per_try_timeout`.
    PerTryTimeout,
    /// The retry policy's `per_try_idle_timeout`.
    PerTryIdle,
    /// The cluster's `max_stream_duration`, or what `x-envoy-upstream-stream-duration-ms` asked for.
    MaxDuration,
}

/// What a reply to a failure depends on besides the failure.
pub(super) struct ReplyCx {
    /// Other attempts were made before.
    pub(super) retried: bool,
    /// `x-envoy-upstream-rq-timeout-alt-response`: a timeout is answered 204.
    pub(super) alternative: bool,
    /// The whole request was read.
    pub(super) request_complete: bool,
    /// `suppress_envoy_headers`
    pub(super) suppress_envoy_headers: bool,
    /// The upstream's response had begun, as far as the client can know: an informational one came.
    pub(super) informed: bool,
}

impl Failure {
    /// The response flag.
    pub(super) fn flag(&self) -> Flag {
        match self {
            Self::Connect(f) | Self::Upstream(UpstreamFailure::Connect(f)) if f.is_overflow() => Flag::UpstreamOverflow,
            Self::Connect(_) => Flag::UpstreamConnectionFailure,
            Self::NoPool => Flag::NoHealthyUpstream,
            Self::Upstream(f) => match f {
                UpstreamFailure::Connect(_) => Flag::UpstreamConnectionFailure,
                UpstreamFailure::RemoteReset | UpstreamFailure::RemoteRefusedStream => Flag::UpstreamRemoteReset,
                UpstreamFailure::ProtocolError(_) => Flag::UpstreamProtocolError,
                UpstreamFailure::RequestBody(_) => Flag::LocalReset,
                UpstreamFailure::ConnectionTermination => Flag::UpstreamConnectionTermination,
            },
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle => Flag::UpstreamRequestTimeout,
            Self::MaxDuration => Flag::UpstreamMaxStreamDurationReached,
        }
    }

    /// `%RESPONSE_CODE_DETAILS%` of what is no reset.
    fn timer_details(&self) -> Option<&'static str> {
        match self {
            Self::Connect(_) | Self::Upstream(_) | Self::NoPool => None,
            Self::Timeout => Some("response_timeout"),
            Self::PerTryTimeout => Some("upstream_per_try_timeout"),
            Self::PerTryIdle => Some("upstream_per_try_idle_timeout"),
            Self::MaxDuration => Some("upstream_max_stream_duration_reached"),
        }
    }

    /// The status a client is answered.
    pub(super) fn status(&self, cx: &ReplyCx) -> StatusCode {
        match self {
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle if cx.alternative => StatusCode::NO_CONTENT,
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle => StatusCode::GATEWAY_TIMEOUT,
            Self::MaxDuration if cx.request_complete => StatusCode::GATEWAY_TIMEOUT,
            Self::MaxDuration => StatusCode::REQUEST_TIMEOUT,
            Self::Upstream(UpstreamFailure::ProtocolError(_)) => StatusCode::BAD_GATEWAY,
            Self::Connect(_) | Self::Upstream(_) | Self::NoPool => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What the client is answered when this was the last attempt.
    pub(super) fn reply(&self, cx: &ReplyCx) -> LocalReply {
        let status = self.status(cx);
        if let Some(details) = self.timer_details() {
            let body = match self {
                Self::MaxDuration => "upstream max stream duration reached",
                _ if cx.alternative => "",
                _ => "upstream request timeout",
            };
            return LocalReply::new(status, body, details).flag(self.flag());
        }
        let reason = self.reset_reason();
        let body = format!(
            "upstream connect error or disconnect/reset before headers. {}reset reason: {reason}",
            if cx.retried { "retried and the latest " } else { "" }
        );
        // The client is not told why; the log is.
        let when = if cx.informed { "after" } else { "before" };
        let details = match self.transport_failure() {
            Some(transport) => format!("upstream_reset_{when}_response_started{{{reason}|{transport}}}"),
            None => format!("upstream_reset_{when}_response_started{{{reason}}}"),
        };
        let mut reply = LocalReply::new(status, body, details.replace(' ', "_")).flag(self.flag());
        let overflow =
            matches!(self, Self::Connect(f) | Self::Upstream(UpstreamFailure::Connect(f)) if f.is_overflow());
        if overflow && !cx.suppress_envoy_headers {
            reply.headers.insert(
                HeaderName::from_static("x-envoy-overloaded"),
                HeaderValue::from_static("true"),
            );
        }
        reply
    }

    /// Counts a limit that ran out.
    pub(super) fn count(&self, stats: &ClusterStats) {
        match self {
            Self::Connect(_) | Self::Upstream(_) | Self::NoPool => {}
            Self::Timeout => stats.upstream_rq_timeout.inc(),
            Self::PerTryTimeout => stats.upstream_rq_per_try_timeout.inc(),
            Self::PerTryIdle => stats.upstream_rq_per_try_idle_timeout.inc(),
            Self::MaxDuration => stats.upstream_rq_max_duration_reached.inc(),
        }
    }

    /// What a response breaks off with when the failure comes after its head.
    pub(super) fn late(&self) -> BodyError {
        let details = match self.timer_details() {
            Some(details) => Cow::Borrowed(details),
            None => {
                let reason = self.reset_reason().replace(' ', "_");
                format!("upstream_reset_after_response_started{{{reason}}}").into()
            }
        };
        BodyError::Upstream {
            flag: self.flag(),
            details,
        }
    }

    /// What a span calls it.
    pub(super) fn reset_reason(&self) -> &'static str {
        match self {
            Self::Connect(f) => f.reset_reason(),
            Self::Upstream(f) => f.reset_reason(),
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle | Self::MaxDuration | Self::NoPool => "local reset",
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    pub(super) fn transport_failure(&self) -> Option<&str> {
        match self {
            Self::Connect(f) => f.transport_failure_reason(),
            Self::Upstream(f) => f.transport_failure_reason(),
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle | Self::MaxDuration | Self::NoPool => None,
        }
    }
}
