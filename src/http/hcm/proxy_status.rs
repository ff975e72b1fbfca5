//! `proxy_status_config`: the `proxy-status` header (RFC 9209), which tells of a failure in the words of the registry.

use http::{HeaderName, HeaderValue, StatusCode};
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ProxyStatusConfig as Proto, proxy_status_config::ProxyName,
};

use super::mutate::append;
use crate::{
    config::{BuildCx, ConfigResult},
    http::{Flag, ResponseHead, StreamInfo},
};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// `proxy_status_config`, built.
#[derive(Debug)]
pub struct ProxyStatus {
    name: String,
    details: bool,
    termination_details: bool,
    flags: bool,
    recommended_status: bool,
}

impl ProxyStatus {
    /// `server_name` is the name where the configuration gives none.
    pub(super) fn build(proto: Proto, server_name: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                remove_details, remove_connection_termination_details, remove_response_flags,
                set_recommended_response_code, proxy_name
            }
        });
        Ok(Self {
            name: match proxy_name {
                None => server_name.to_owned(),
                // That the choice was made counts, not what it says.
                Some(ProxyName::UseNodeId(_)) => cx.server.node.id.clone(),
                Some(ProxyName::LiteralProxyName(name)) => name,
            },
            details: !remove_details,
            termination_details: !remove_connection_termination_details,
            flags: !remove_response_flags,
            recommended_status: set_recommended_response_code,
        })
    }

    /// Adds the header when the stream has failed.
    pub(super) fn apply(&self, head: &mut ResponseHead, info: &StreamInfo) {
        let Some((error, status)) = error(info) else { return };
        let mut value = format!("{}; error={error}", self.name);
        if self.details
            && let Some(details) = &info.response_code_details
        {
            value.push_str("; details=\"");
            value.push_str(details);
            if self.termination_details
                && let Some(details) = &info.connection_termination_details
            {
                value.push_str("; ");
                value.push_str(details);
            }
            if self.flags && !info.flags.is_empty() {
                value.push_str("; ");
                value.push_str(&info.flags.to_string());
            }
            value.push('"');
        }
        if let Ok(value) = HeaderValue::try_from(value) {
            append(&mut head.headers, PROXY_STATUS, b", ", &value);
        }
        if self.recommended_status {
            head.status = status;
        }
    }
}

/// The first flag that the registry has a word for, and the status that it recommends.
fn error(info: &StreamInfo) -> Option<(&'static str, StatusCode)> {
    const TABLE: [(Flag, &str, StatusCode); 20] = [
        (
            Flag::FailedLocalHealthCheck,
            "destination_unavailable",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            Flag::NoHealthyUpstream,
            "destination_unavailable",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            Flag::UpstreamRequestTimeout,
            "http_response_timeout",
            StatusCode::GATEWAY_TIMEOUT,
        ),
        (Flag::LocalReset, "connection_timeout", StatusCode::GATEWAY_TIMEOUT),
        (
            Flag::UpstreamRemoteReset,
            "connection_terminated",
            StatusCode::BAD_GATEWAY,
        ),
        (
            Flag::UpstreamConnectionFailure,
            "connection_refused",
            StatusCode::BAD_GATEWAY,
        ),
        (
            Flag::UpstreamConnectionTermination,
            "connection_terminated",
            StatusCode::BAD_GATEWAY,
        ),
        (
            Flag::UpstreamOverflow,
            "connection_limit_reached",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            Flag::NoRouteFound,
            "destination_not_found",
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
        (
            Flag::RateLimited,
            "connection_limit_reached",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            Flag::RateLimitServiceError,
            "connection_limit_reached",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            Flag::UpstreamRetryLimitExceeded,
            "destination_unavailable",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (
            Flag::StreamIdleTimeout,
            "http_response_timeout",
            StatusCode::GATEWAY_TIMEOUT,
        ),
        (
            Flag::InvalidEnvoyRequestHeaders,
            "http_request_error",
            StatusCode::BAD_REQUEST,
        ),
        (
            Flag::DownstreamProtocolError,
            "http_request_error",
            StatusCode::BAD_REQUEST,
        ),
        (
            Flag::UpstreamMaxStreamDurationReached,
            "http_response_timeout",
            StatusCode::GATEWAY_TIMEOUT,
        ),
        (
            Flag::NoFilterConfigFound,
            "proxy_configuration_error",
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
        (
            Flag::UpstreamProtocolError,
            "http_protocol_error",
            StatusCode::BAD_GATEWAY,
        ),
        (
            Flag::NoClusterFound,
            "destination_unavailable",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (Flag::DnsResolutionFailed, "dns_error", StatusCode::BAD_GATEWAY),
    ];
    TABLE
        .iter()
        .find(|(flag, ..)| info.flags.has(*flag))
        .map(|(_, error, status)| (*error, *status))
}
