//! Asking over HTTP: the request without its body, and what the response means.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use http_body_util::{BodyExt, Limited};
use xds_protos::{
    envoy::{
        config::core::v3::{HeaderValue as ProtoHeader, HttpUri, http_uri::HttpUpstreamType},
        extensions::filters::http::ext_authz::v3::{AuthorizationRequest, AuthorizationResponse, HttpService as Proto},
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use super::{
    answer::{Allowed, Answer, Change, Denied, How},
    check::Read,
    config::{Config, matchers},
};
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    extensions::filters::common::authorization::{ALLOWED, DENIED, STATUS},
    http::{Body, RequestHead, Scheme, filter::FilterCx},
    matching::StringMatcher,
    tracing::CallSpan,
    upstream::client::{ClusterChannel, mark_own},
};

/// Names of headers of a request that the service wants gone.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Most bytes of an answer's body.
const MOST: usize = 1024 * 1024;

/// Where and how it is asked.
pub(super) struct HttpService {
    cluster: Arc<str>,
    timeout: Duration,
    path_prefix: String,
    path_override: String,
    allowed_headers: Vec<StringMatcher>,
    headers_to_add: Vec<(HeaderName, HeaderValue)>,
    upstream: Vec<StringMatcher>,
    upstream_append: Vec<StringMatcher>,
    /// None: all.
    client: Option<Vec<StringMatcher>>,
    client_on_success: Vec<StringMatcher>,
    metadata: Vec<StringMatcher>,
}

impl HttpService {
    /// Reads the service.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { server_uri, path_prefix, path_override, authorization_request, authorization_response }
            ignored { retry_policy: "a question is asked once" }
        });
        let uri = server_uri.ok_or_else(|| cx.error_at("server_uri", "value is required"))?;
        let HttpUri {
            uri: _,
            timeout,
            http_upstream_type,
        } = uri;
        let cluster = match http_upstream_type {
            Some(HttpUpstreamType::Cluster(name)) if !name.is_empty() => name,
            _ => return Err(cx.error_at("server_uri.cluster", "value is required")),
        };
        if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
            return Err(cx.error_at("path_prefix", "path_prefix should start with \"/\"."));
        }
        if !path_prefix.is_empty() && !path_override.is_empty() {
            return Err(cx.error("Only one of path_prefix or path_override may be set."));
        }
        let request = authorization_request.unwrap_or_default();
        coverage!(cx, request => AuthorizationRequest { supported { allowed_headers, headers_to_add } });
        let response = authorization_response.unwrap_or_default();
        coverage!(cx, response => AuthorizationResponse {
            supported {
                allowed_upstream_headers, allowed_upstream_headers_to_append, allowed_client_headers,
                allowed_client_headers_on_success, dynamic_metadata_from_headers,
            }
        });
        Ok(Self {
            cluster: cluster.into(),
            timeout: timeout.or_duration(Duration::ZERO),
            path_prefix,
            path_override,
            allowed_headers: cx
                .opt("authorization_request.allowed_headers", allowed_headers, matchers)?
                .unwrap_or_default(),
            headers_to_add: cx.each("authorization_request.headers_to_add", headers_to_add, |proto, cx| {
                let ProtoHeader { key, value, raw_value } = proto;
                let bytes = if value.is_empty() {
                    raw_value
                } else {
                    value.into_bytes()
                };
                let name = HeaderName::try_from(key.to_ascii_lowercase()).ok();
                name.zip(HeaderValue::from_bytes(&bytes).ok())
                    .ok_or_else(|| cx.error("not a valid header"))
            })?,
            upstream: cx
                .opt("allowed_upstream_headers", allowed_upstream_headers, matchers)?
                .unwrap_or_default(),
            upstream_append: cx
                .opt(
                    "allowed_upstream_headers_to_append",
                    allowed_upstream_headers_to_append,
                    matchers,
                )?
                .unwrap_or_default(),
            client: cx
                .opt("allowed_client_headers", allowed_client_headers, matchers)?
                .filter(|patterns| !patterns.is_empty()),
            client_on_success: cx
                .opt(
                    "allowed_client_headers_on_success",
                    allowed_client_headers_on_success,
                    matchers,
                )?
                .unwrap_or_default(),
            metadata: cx
                .opt("dynamic_metadata_from_headers", dynamic_metadata_from_headers, matchers)?
                .unwrap_or_default(),
        })
    }

    /// Asks about a request.
    pub async fn ask(&self, config: &Config, cx: &FilterCx, head: &RequestHead, body: Option<&Read>) -> Answer {
        let mut question = self.question(config, head, body);
        let span = CallSpan::http(cx.span.as_ref(), &self.cluster).silent_if(config.silent);
        span.inject(&mut question.headers);
        let channel = ClusterChannel::new(cx.worker.clone(), self.cluster.clone(), None);
        let asking = self.send(question, body, &channel, &span);
        let answered = match self.timeout {
            Duration::ZERO => asking.await,
            limit => tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| {
                channel.timed_out();
                None
            }),
        };
        match answered {
            Some((status, headers, body)) => {
                span.tag("ext_authz_http_status", status.canonical_reason().unwrap_or("Unknown"));
                let said = if status == StatusCode::OK { ALLOWED } else { DENIED };
                span.tag(STATUS, said);
                self.read(status, &headers, body)
            }
            None => Answer::Error(None),
        }
    }

    fn question(&self, config: &Config, head: &RequestHead, body: Option<&Read>) -> RequestHead {
        let path = head.path.as_ref().map(|p| p.as_str()).unwrap_or_default();
        let path = match self.path_override.as_str() {
            "" => format!("{}{path}", self.path_prefix),
            path => path.to_owned(),
        };
        let told = |name: &str| {
            name == header::AUTHORIZATION.as_str()
                || matches(&self.allowed_headers, name)
                || config.allowed.is_some() && config.tells(name)
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &head.headers {
            if told(name.as_str()) && *name != header::CONTENT_LENGTH {
                headers.append(name.clone(), value.clone());
            }
        }
        let length = body.map_or(0, |read| read.bytes.len());
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Some(read) = body {
            let partial = if read.partial { "true" } else { "false" };
            headers.insert(
                HeaderName::from_static("x-envoy-auth-partial-body"),
                HeaderValue::from_static(partial),
            );
        }
        for (name, value) in &self.headers_to_add {
            headers.insert(name.clone(), value.clone());
        }
        mark_own(&mut headers, Some(self.timeout).filter(|limit| !limit.is_zero()));
        RequestHead {
            method: head.method.clone(),
            scheme: Scheme::Http,
            authority: head.authority.clone(),
            path: path.parse().ok(),
            protocol: None,
            version: Version::HTTP_11,
            spelling: None,
            headers,
        }
    }

    async fn send(
        &self,
        question: RequestHead,
        body: Option<&Read>,
        channel: &ClusterChannel,
        span: &CallSpan,
    ) -> Option<(StatusCode, HeaderMap, Bytes)> {
        let body = match body {
            Some(read) if !read.bytes.is_empty() => Body::full(read.bytes.clone()),
            _ => Body::Empty,
        };
        let answer = channel.send(question, body).await;
        let answer = answer
            .inspect_err(|error| tracing::debug!(%error, "external authorization"))
            .ok()?;
        span.http_answer(
            answer.head.status.as_u16(),
            answer.conn.protocol,
            &answer.conn.remote_address,
        );
        let whole = Limited::new(answer.body, MOST).collect().await.ok()?;
        Some((answer.head.status, answer.head.headers, whole.to_bytes()))
    }

    fn read(&self, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
        if status.is_server_error() {
            return Answer::Error(None);
        }
        let take = |patterns: &dyn Fn(&str) -> bool, how: How| -> Vec<Change> {
            headers
                .iter()
                .filter(|(name, _)| patterns(name.as_str()))
                .map(|(name, value)| Change {
                    name: name.as_str().to_owned(),
                    value: value.as_bytes().to_vec(),
                    how,
                })
                .collect()
        };
        let mut metadata = Struct::default();
        for (name, value) in headers.iter().filter(|(n, _)| matches(&self.metadata, n.as_str())) {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let value = Value {
                kind: Some(Kind::StringValue(text)),
            };
            metadata.fields.insert(name.as_str().to_owned(), value);
        }
        if status == StatusCode::OK {
            let mut request = take(&|n| matches(&self.upstream, n), How::Set);
            request.extend(take(&|n| matches(&self.upstream_append, n), How::AppendToExisting));
            let remove = headers.get_all(TO_REMOVE).iter().filter_map(|v| v.to_str().ok());
            return Answer::Allowed(Box::new(Allowed {
                request,
                remove: remove.flat_map(|v| v.split(',').map(|n| n.trim().to_owned())).collect(),
                response: take(&|n| matches(&self.client_on_success, n), How::Add),
                metadata,
                ..Allowed::default()
            }));
        }
        let to_client = |name: &str| match &self.client {
            None => name != "host",
            Some(patterns) => {
                matches(patterns, name) || ["content-length", "www-authenticate", "location"].contains(&name)
            }
        };
        Answer::Denied(Box::new(Denied {
            status,
            headers: take(&to_client, How::Add),
            body,
            metadata,
        }))
    }
}

fn matches(patterns: &[StringMatcher], name: &str) -> bool {
    patterns.iter().any(|m| m.matches(name.as_bytes()))
}
