//! A collector behind a cluster that takes spans over HTTP.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use xds_protos::envoy::config::core::v3::{HeaderValueOption, HttpService, HttpUri, http_uri::HttpUpstreamType};

use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    http::{Body, RequestHead, Scheme},
    net::local_address,
    server::Worker,
    upstream::client::{ChannelError, ClusterChannel, mark_own},
};

/// Where spans go.
pub struct HttpCollector {
    /// The cluster.
    pub cluster: Arc<str>,
    /// `:authority`
    pub host: String,
    /// `:path`
    pub path: String,
    /// Headers that configuration sets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long an answer is waited for, where the service says.
    pub timeout: Option<Duration>,
}

impl HttpCollector {
    /// Reads `HttpService`. The path is all of a URI without a scheme.
    pub fn build(proto: HttpService, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HttpService {
            supported { http_uri, request_headers_to_add }
            ignored { formatters: "values of headers are sent as they are written" }
        });
        let http_uri = http_uri.ok_or_else(|| cx.error_at("http_uri", "value is required"))?;
        coverage!(cx, http_uri => HttpUri { supported { uri, timeout, http_upstream_type } });
        let cluster = match http_upstream_type {
            Some(HttpUpstreamType::Cluster(name)) => name,
            None => return Err(cx.error_at("http_uri.cluster", "value is required")),
        };
        let (host, path) = match uri.split_once("://") {
            None => ("", uri.as_str()),
            Some((_, rest)) => match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, "/"),
            },
        };
        Ok(Self {
            host: if host.is_empty() {
                cluster.clone()
            } else {
                host.to_owned()
            },
            path: path.to_owned(),
            headers: cx.each("request_headers_to_add", request_headers_to_add, header)?,
            timeout: timeout.enabled_or(Duration::ZERO),
            cluster: cluster.into(),
        })
    }

    /// Sends a body, and says how it was answered.
    ///
    /// # Errors
    /// Nobody answered in time, or at all.
    pub async fn send(
        &self,
        worker: Rc<Worker>,
        content_type: &'static str,
        user_agent: Option<HeaderValue>,
        timeout: Option<Duration>,
        body: Vec<u8>,
    ) -> Result<StatusCode, ChannelError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(agent) = user_agent {
            headers.insert(header::USER_AGENT, agent);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        mark_own(&mut headers, timeout);
        if let Ok(address) = HeaderValue::try_from(local_address().to_string()) {
            headers.insert("x-forwarded-for", address);
        }
        let head = RequestHead {
            method: Method::POST,
            scheme: Scheme::Http,
            authority: HeaderValue::from_str(&self.host).ok(),
            path: self.path.parse().ok(),
            protocol: None,
            version: Version::HTTP_11,
            headers,
            spelling: None,
        };
        let channel = ClusterChannel::new(worker, self.cluster.clone(), None);
        let answer = channel.send(head, Body::full(body));
        let answer = match timeout {
            None => answer.await,
            Some(limit) => match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(ChannelError::Upstream("no answer in time".to_owned())),
            },
        };
        Ok(answer?.head.status)
    }
}

fn header(proto: HeaderValueOption, cx: &mut BuildCx<'_>) -> ConfigResult<(HeaderName, HeaderValue)> {
    coverage!(cx, proto => HeaderValueOption {
        supported { header }
        ignored {
            append: "each name has one value",
            append_action: "each name has one value",
            keep_empty_value: "an empty value is kept",
        }
    });
    let header = header.unwrap_or_default();
    let bytes = match header.value.is_empty() {
        true => header.raw_value,
        false => header.value.into_bytes(),
    };
    let name = HeaderName::try_from(header.key.to_ascii_lowercase()).ok();
    name.zip(HeaderValue::from_bytes(&bytes).ok())
        .ok_or_else(|| cx.error_at("header", "not a valid header"))
}
