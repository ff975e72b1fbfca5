//! From a finished stream to an entry of `envoy.data.accesslog.v3`.

use std::{
    collections::HashMap,
    time::{Instant, UNIX_EPOCH},
};

use http::{HeaderMap, Method, Version, header};
use xds_protos::{
    envoy::{
        config::core::v3::{
            Address as ProtoAddress, EnvoyInternalAddress, Metadata, Pipe, RequestMethod, SocketAddress,
            address::Address as Kind, envoy_internal_address::AddressNameSpecifier, socket_address::PortSpecifier,
        },
        data::accesslog::v3::{
            AccessLogCommon, AccessLogType, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
            HttpResponseProperties, ResponseFlags as ProtoFlags, TcpAccessLogEntry, TlsProperties,
            http_access_log_entry::HttpVersion,
            response_flags::{Unauthorized, unauthorized::Reason},
            tls_properties::TlsVersion,
        },
    },
    google::protobuf::{Duration as ProtoDuration, Timestamp, UInt32Value},
};

use crate::{
    access_log::LogCx,
    http::{Flag, RequestHead, ResponseFlags, ResponseHead, StreamInfo},
    net::Address,
};

/// An entry on its way.
pub enum Entry {
    /// Of a request.
    Http(Box<HttpAccessLogEntry>),
    /// Of a connection.
    Tcp(Box<TcpAccessLogEntry>),
}

/// `additional_*_to_log`, in lower case.
pub struct Headers {
    request: Vec<String>,
    response: Vec<String>,
    trailers: Vec<String>,
}

impl Headers {
    /// Names as configured.
    pub fn new(request: Vec<String>, response: Vec<String>, trailers: Vec<String>) -> Self {
        let lower = |names: Vec<String>| names.into_iter().map(|n| n.to_ascii_lowercase()).collect();
        Self {
            request: lower(request),
            response: lower(response),
            trailers: lower(trailers),
        }
    }

    #[cfg(test)]
    pub fn request_names(&self) -> &[String] {
        &self.request
    }
}

/// The entry of a request.
pub fn http(cx: &LogCx<'_>, headers: &Headers) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(common(cx.info)),
        protocol_version: version(cx.info.protocol).into(),
        request: cx.request.map(|head| request(head, cx.info, headers)),
        response: Some(response(cx.response, cx.info, headers)),
    }
}

/// The entry of a connection.
pub fn tcp(cx: &LogCx<'_>) -> TcpAccessLogEntry {
    TcpAccessLogEntry {
        common_properties: Some(common(cx.info)),
        connection_properties: Some(ConnectionProperties {
            received_bytes: cx.info.progress.bytes_received.get(),
            sent_bytes: cx.info.progress.bytes_sent.get(),
        }),
    }
}

fn common(info: &StreamInfo) -> AccessLogCommon {
    let connection = &info.connection;
    let progress = &info.progress;
    let since = |at: Option<Instant>| at.map(|at| between(info.start, at));
    let start = info.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    AccessLogCommon {
        downstream_remote_address: Some(address(info.remote_address())),
        downstream_local_address: Some(address(&connection.local_address)),
        downstream_direct_remote_address: Some(address(&connection.direct_remote_address)),
        tls_properties: connection.tls.as_ref().map(|tls| TlsProperties {
            tls_version: tls_version(tls.version).into(),
            tls_sni_hostname: tls.sni.as_deref().unwrap_or_default().to_owned(),
            tls_session_id: tls.session_id.clone(),
            ..TlsProperties::default()
        }),
        start_time: Some(Timestamp {
            seconds: i64::try_from(start.as_secs()).unwrap_or(i64::MAX),
            nanos: start.subsec_nanos().cast_signed(),
        }),
        time_to_last_rx_byte: since(progress.last_downstream_rx.get()),
        time_to_first_upstream_tx_byte: since(progress.first_upstream_tx.get()),
        time_to_last_upstream_tx_byte: since(progress.last_upstream_tx.get()),
        time_to_first_upstream_rx_byte: since(progress.first_upstream_rx.get()),
        time_to_last_upstream_rx_byte: since(progress.last_upstream_rx.get()),
        time_to_first_downstream_tx_byte: since(progress.first_downstream_tx.get()),
        time_to_last_downstream_tx_byte: since(progress.last_downstream_tx.get()),
        duration: since(info.end),
        upstream_remote_address: info.upstream.remote_address.as_ref().map(address),
        upstream_local_address: info.upstream.local_address.as_ref().map(address),
        upstream_cluster: text(info.upstream.cluster.as_deref()),
        upstream_transport_failure_reason: text(info.upstream.transport_failure.as_deref()),
        downstream_transport_failure_reason: text(connection.transport_failure.borrow().as_deref()),
        upstream_request_attempt_count: info.upstream.attempts,
        response_flags: (!info.flags.is_empty()).then(|| flags(info.flags)),
        metadata: (!info.metadata.is_empty()).then(|| Metadata {
            filter_metadata: info.metadata.clone().into_iter().collect(),
            ..Metadata::default()
        }),
        route_name: text(info.route_name.as_deref()),
        connection_termination_details: text(info.connection_termination_details.as_deref()),
        stream_id: info
            .request_id
            .as_ref()
            .map(|id| lossy(id.as_bytes()))
            .unwrap_or_default(),
        access_log_type: AccessLogType::from_str_name(info.access_log_type)
            .unwrap_or(AccessLogType::NotSet)
            .into(),
        ..AccessLogCommon::default()
    }
}

fn request(head: &RequestHead, info: &StreamInfo, headers: &Headers) -> HttpRequestProperties {
    let value = |name: &str| head.headers.get(name).map(|v| lossy(v.as_bytes())).unwrap_or_default();
    HttpRequestProperties {
        request_method: method(&head.method).into(),
        scheme: head.scheme.as_str().to_owned(),
        authority: head.host().to_owned(),
        path: head.path.as_ref().map(ToString::to_string).unwrap_or_default(),
        user_agent: value(header::USER_AGENT.as_str()),
        referer: value(header::REFERER.as_str()),
        forwarded_for: value("x-forwarded-for"),
        request_id: value("x-request-id"),
        original_path: value("x-envoy-original-path"),
        request_headers_bytes: info.request_header_bytes,
        request_body_bytes: info.progress.bytes_received.get(),
        request_headers: pick(&head.headers, &headers.request),
        ..HttpRequestProperties::default()
    }
}

fn response(head: Option<&ResponseHead>, info: &StreamInfo, headers: &Headers) -> HttpResponseProperties {
    HttpResponseProperties {
        response_code: info.response_code.map(|code| UInt32Value {
            value: code.as_u16().into(),
        }),
        response_headers_bytes: info.response_header_bytes,
        response_body_bytes: info.progress.bytes_sent.get(),
        response_headers: head.map(|h| pick(&h.headers, &headers.response)).unwrap_or_default(),
        response_trailers: info
            .response_trailers
            .as_ref()
            .map(|t| pick(t, &headers.trailers))
            .unwrap_or_default(),
        response_code_details: text(info.response_code_details.as_deref()),
        ..HttpResponseProperties::default()
    }
}

/// The named headers that are there; several values of one are joined by commas.
fn pick(map: &HeaderMap, names: &[String]) -> HashMap<String, String> {
    let mut out = HashMap::new();
    for name in names {
        let values: Vec<String> = map.get_all(name).iter().map(|v| lossy(v.as_bytes())).collect();
        if !values.is_empty() {
            out.insert(name.clone(), values.join(","));
        }
    }
    out
}

// A proto string is UTF-8, a header need not be.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn between(start: Instant, end: Instant) -> ProtoDuration {
    let d = end.saturating_duration_since(start);
    ProtoDuration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: d.subsec_nanos().cast_signed(),
    }
}

pub fn address(address: &Address) -> ProtoAddress {
    let kind = match address {
        Address::Ip(ip) => Kind::SocketAddress(SocketAddress {
            address: ip.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(ip.port().into())),
            ..SocketAddress::default()
        }),
        Address::Pipe(path) => Kind::Pipe(Pipe {
            path: path.to_string(),
            ..Pipe::default()
        }),
        Address::Internal { listener, endpoint } => Kind::EnvoyInternalAddress(EnvoyInternalAddress {
            endpoint_id: endpoint.to_string(),
            address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(listener.to_string())),
        }),
    };
    ProtoAddress { address: Some(kind) }
}

fn method(method: &Method) -> RequestMethod {
    match method.as_str() {
        "GET" => RequestMethod::Get,
        "HEAD" => RequestMethod::Head,
        "POST" => RequestMethod::Post,
        "PUT" => RequestMethod::Put,
        "DELETE" => RequestMethod::Delete,
        "CONNECT" => RequestMethod::Connect,
        "OPTIONS" => RequestMethod::Options,
        "TRACE" => RequestMethod::Trace,
        "PATCH" => RequestMethod::Patch,
        _ => RequestMethod::MethodUnspecified,
    }
}

fn version(version: Option<Version>) -> HttpVersion {
    match version {
        Some(Version::HTTP_10) => HttpVersion::Http10,
        Some(Version::HTTP_11) => HttpVersion::Http11,
        Some(Version::HTTP_2) => HttpVersion::Http2,
        Some(Version::HTTP_3) => HttpVersion::Http3,
        _ => HttpVersion::ProtocolUnspecified,
    }
}

fn tls_version(version: &str) -> TlsVersion {
    match version {
        "TLSv1" => TlsVersion::TlSv1,
        "TLSv1.1" => TlsVersion::TlSv11,
        "TLSv1.2" => TlsVersion::TlSv12,
        "TLSv1.3" => TlsVersion::TlSv13,
        _ => TlsVersion::VersionUnspecified,
    }
}

pub(super) fn flags(flags: ResponseFlags) -> ProtoFlags {
    ProtoFlags {
        failed_local_healthcheck: flags.has(Flag::FailedLocalHealthCheck),
        no_healthy_upstream: flags.has(Flag::NoHealthyUpstream),
        upstream_request_timeout: flags.has(Flag::UpstreamRequestTimeout),
        local_reset: flags.has(Flag::LocalReset),
        upstream_remote_reset: flags.has(Flag::UpstreamRemoteReset),
        upstream_connection_failure: flags.has(Flag::UpstreamConnectionFailure),
        upstream_connection_termination: flags.has(Flag::UpstreamConnectionTermination),
        upstream_overflow: flags.has(Flag::UpstreamOverflow),
        no_route_found: flags.has(Flag::NoRouteFound),
        delay_injected: flags.has(Flag::DelayInjected),
        fault_injected: flags.has(Flag::FaultInjected),
        rate_limited: flags.has(Flag::RateLimited),
        unauthorized_details: flags.has(Flag::UnauthorizedExternalService).then(|| Unauthorized {
            reason: Reason::ExternalService.into(),
        }),
        rate_limit_service_error: flags.has(Flag::RateLimitServiceError),
        downstream_connection_termination: flags.has(Flag::DownstreamConnectionTermination),
        upstream_retry_limit_exceeded: flags.has(Flag::UpstreamRetryLimitExceeded),
        stream_idle_timeout: flags.has(Flag::StreamIdleTimeout),
        invalid_envoy_request_headers: flags.has(Flag::InvalidEnvoyRequestHeaders),
        downstream_protocol_error: flags.has(Flag::DownstreamProtocolError),
        upstream_max_stream_duration_reached: flags.has(Flag::UpstreamMaxStreamDurationReached),
        response_from_cache_filter: flags.has(Flag::ResponseFromCacheFilter),
        no_filter_config_found: flags.has(Flag::NoFilterConfigFound),
        duration_timeout: flags.has(Flag::DurationTimeout),
        upstream_protocol_error: flags.has(Flag::UpstreamProtocolError),
        no_cluster_found: flags.has(Flag::NoClusterFound),
        overload_manager: flags.has(Flag::OverloadManager),
        dns_resolution_failure: flags.has(Flag::DnsResolutionFailed),
        downstream_remote_reset: flags.has(Flag::DownstreamRemoteReset),
    }
}
