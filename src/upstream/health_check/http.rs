//! HTTP checks: a request is answered with an expected status, and with an expected body where one is configured.

use std::ops::Range;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, USER_AGENT},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use xds_protos::envoy::{
    config::core::v3::{RequestMethod, health_check::HttpHealthCheck as Proto},
    data::core::v3::HealthCheckFailureType::{Active, Network},
    r#type::v3::{CodecClientType, Int64Range},
};

use super::{
    HealthCheckConfig, HealthCheckStats,
    client::{Connection, Target},
    events::Failure,
    payload::{bytes, contains_in_order},
    session::{Verdict, stream_info},
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{Body, Path, RequestHead, Scheme},
    matching::StringMatcher,
    route::HeaderMutations,
    runtime::Key,
    upstream::HealthFlag,
};

/// What the checks of Envoy say they are.
pub const CHECKER: HeaderValue = HeaderValue::from_static("Envoy/HC");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// `http_health_check`
pub struct HttpCheck {
    host: String,
    path: Path,
    method: Method,
    send: Bytes,
    receive: Vec<Vec<u8>>,
    /// `response_buffer_size`: how much of a body is looked at; 0 for all of it.
    buffer: usize,
    headers: HeaderMutations,
    expected: Vec<Range<u16>>,
    retriable: Vec<Range<u16>>,
    h2: bool,
    service: Option<StringMatcher>,
    /// `health_check.verify_cluster`
    verify: Key,
}

impl HttpCheck {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                host, path, send, receive, response_buffer_size, request_headers_to_add, request_headers_to_remove,
                expected_statuses, retriable_statuses, codec_client_type, service_name_matcher, method
            }
        });
        let method_name = match RequestMethod::try_from(method) {
            Ok(RequestMethod::MethodUnspecified) | Err(_) => RequestMethod::Get,
            Ok(method) => method,
        };
        let send = cx.opt("send", send, bytes)?;
        use RequestMethod::{Delete, Get, Head, Trace};
        if send.is_some() && matches!(method_name, Get | Head | Delete | Trace) {
            return Err(cx.error(format!(
                "HTTP health check cannot specify a request payload with method '{}'. Only methods that support a \
                 request body (POST, PUT, PATCH, OPTIONS) can be used with payload.",
                method_name.as_str_name()
            )));
        }
        let receive = cx.each("receive", receive, bytes)?;
        let buffer = response_buffer_size.map_or(1024, |v| usize::try_from(v.value).unwrap_or(usize::MAX));
        let length: usize = receive.iter().map(Vec::len).sum();
        if buffer != 0 && length > buffer {
            return Err(cx.error(format!(
                "The expected response length '{length}' is over than http health response buffer size '{buffer}'"
            )));
        }
        let h2 = match CodecClientType::try_from(codec_client_type) {
            Ok(CodecClientType::Http2) => true,
            Ok(CodecClientType::Http3) => {
                return Err(cx.error_at("codec_client_type", "not supported: health checks over HTTP/3"));
            }
            Ok(CodecClientType::Http1) | Err(_) => false,
        };
        let mut expected = ranges(expected_statuses, "expected", cx)?;
        if expected.is_empty() {
            expected.push(200..201);
        }
        Ok(Self {
            method: Method::from_bytes(method_name.as_str_name().as_bytes()).unwrap_or(Method::GET),
            path: Path::new(path).ok_or_else(|| cx.error_at("path", "not a path"))?,
            send: send.unwrap_or_default().into(),
            receive,
            buffer,
            headers: HeaderMutations::build(
                ("request_headers_to_add", "request_headers_to_remove"),
                request_headers_to_add,
                request_headers_to_remove,
                cx,
            )?,
            expected,
            retriable: ranges(retriable_statuses, "retriable", cx)?,
            h2,
            service: cx.opt("service_name_matcher", service_name_matcher, StringMatcher::build)?,
            verify: cx.server.runtime.key("health_check.verify_cluster"),
            host,
        })
    }

    /// Checks once, over the connection of the last time if it is still there.
    pub async fn run(
        &self,
        target: &Target,
        config: &HealthCheckConfig,
        stats: &HealthCheckStats,
        kept: &mut Option<Connection>,
    ) -> Verdict {
        match self.exchange(target, config, stats, kept).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::debug!(host = %target.host.address, %error, "health check failed");
                Verdict::failed(Network)
            }
        }
    }

    async fn exchange(
        &self,
        target: &Target,
        config: &HealthCheckConfig,
        stats: &HealthCheckStats,
        kept: &mut Option<Connection>,
    ) -> Result<Verdict, super::client::CheckError> {
        let mut connection = match kept.take().filter(Connection::is_open) {
            Some(connection) => connection,
            None => Connection::open(target, self.h2).await?,
        };
        let response = connection.send(self.request(target)).await?;
        let (head, mut body) = response.into_parts();
        let read = self.read(&mut body).await?;
        if config.reuse_connection {
            *kept = Some(connection);
        }
        Ok(self.judge(&Response::from_parts(head, ()), &read, target, stats))
    }

    fn request(&self, target: &Target) -> Request<Body> {
        let attributes = target.host.attributes();
        let hostname = target.hostname(&attributes.health_check_hostname, &self.host);
        let mut head = RequestHead {
            method: self.method.clone(),
            scheme: match target.is_secure() {
                true => Scheme::Https,
                false => Scheme::Http,
            },
            authority: HeaderValue::from_str(hostname).ok(),
            path: Some(self.path.clone()),
            protocol: None,
            version: if self.h2 { Version::HTTP_2 } else { Version::HTTP_11 },
            headers: HeaderMap::from_iter([(USER_AGENT, CHECKER)]),
            spelling: None,
        };
        let info = stream_info(target, head.version);
        self.headers.run(&mut head, &info);
        if !self.send.is_empty() {
            head.headers.insert(CONTENT_LENGTH, self.send.len().into());
        } else if !matches!(head.method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE) && !self.h2 {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        to_request(head, Body::full(self.send.clone()))
    }

    async fn read(&self, body: &mut Incoming) -> Result<BytesMut, hyper::Error> {
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if self.receive.is_empty() {
                continue;
            }
            let room = match self.buffer {
                0 => data.len(),
                limit => limit.saturating_sub(read.len()).min(data.len()),
            };
            read.extend_from_slice(&data[..room]);
        }
        Ok(read)
    }

    fn judge(&self, response: &Response<()>, body: &[u8], target: &Target, stats: &HealthCheckStats) -> Verdict {
        let status = response.status();
        let failed = |retriable| {
            if response.headers().contains_key(IMMEDIATE_FAIL) {
                target.host.set_flag(HealthFlag::ExcludedViaImmediateHcFail, true);
            }
            Verdict::Failed(Failure {
                kind: Active,
                retriable,
                status: status.as_u16(),
            })
        };
        if !contains_in_order(&self.receive, body) {
            return failed(false);
        }
        if !within(&self.expected, status) {
            return failed(within(&self.retriable, status));
        }
        if let Some(service) = &self.service
            && self.verify.percent_feature(100, fastrand::u64(..))
        {
            stats.verify_cluster.inc();
            let name = response.headers().get(CHECKED_CLUSTER);
            if !service.matches(name.map_or(b"", HeaderValue::as_bytes)) {
                return Verdict::Failed(Failure {
                    kind: Active,
                    retriable: false,
                    status: status.as_u16(),
                });
            }
        }
        Verdict::Healthy {
            degraded: response.headers().contains_key(DEGRADED),
        }
    }
}

/// A head as the codecs want it: origin form and `host` for HTTP/1, pseudo-headers in the URI for HTTP/2.
pub fn to_request(mut head: RequestHead, body: Body) -> Request<Body> {
    let path = head.path.as_ref().and_then(Path::to_uri);
    let authority = head.authority.take();
    let mut uri = Uri::builder();
    if let Some(path) = path {
        uri = uri.path_and_query(path);
    }
    match authority {
        Some(authority) if head.version == Version::HTTP_2 => {
            uri = uri.scheme(head.scheme.as_str()).authority(authority.as_bytes());
        }
        Some(authority) => {
            head.headers.insert(HOST, authority);
        }
        None => {}
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = uri.build().unwrap_or_default();
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    request
}

fn within(ranges: &[Range<u16>], status: StatusCode) -> bool {
    ranges.iter().any(|range| range.contains(&status.as_u16()))
}

fn ranges(protos: Vec<Int64Range>, what: &str, cx: &BuildCx<'_>) -> ConfigResult<Vec<Range<u16>>> {
    let range = |Int64Range { start, end }| {
        let error = |wanted: &str, found: String| {
            cx.error(format!(
                "Invalid http {what} status range: expecting {wanted}, but found {found}"
            ))
        };
        if start >= end {
            return Err(error("start < end", format!("start={start} and end={end}")));
        }
        if start < 100 {
            return Err(error("start >= 100", format!("start={start}")));
        }
        if end > 600 {
            return Err(error("end <= 600", format!("end={end}")));
        }
        let small = |n: i64| u16::try_from(n).unwrap_or(u16::MAX);
        Ok(small(start)..small(end))
    };
    protos.into_iter().map(range).collect()
}
