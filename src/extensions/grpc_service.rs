//! `envoy.config.core.v3.GrpcService`: whom side calls of filters and loggers go to.

use std::{rc::Rc, sync::Arc, time::Duration};

use tonic::{
    Request,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap, MetadataValue},
};
use xds_protos::envoy::config::core::v3::{
    GrpcService, HeaderValue,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
};

use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    net::local_address,
    server::Worker,
    tracing::{CallSpan, Span},
    upstream::client::ClusterChannel,
};

/// Headers of a call.
pub type Metadata = Vec<(AsciiMetadataKey, AsciiMetadataValue)>;

/// A service behind a cluster.
pub struct Target {
    /// `envoy_grpc.cluster_name`; it need not exist yet.
    pub cluster: Arc<str>,
    /// `timeout` of a call, where its user has no other; streams have none.
    pub timeout: Option<Duration>,
    /// `envoy_grpc.max_receive_message_length`; tonic's 4 MiB without it.
    pub max_message: Option<usize>,
    /// `envoy_grpc.authority`; the cluster's name without it.
    authority: Option<String>,
    /// `initial_metadata`
    metadata: Metadata,
}

impl Target {
    /// Reads the message. Only `envoy_grpc` is spoken.
    pub fn build(proto: GrpcService, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => GrpcService {
            supported { target_specifier, initial_metadata, timeout }
            ignored { retry_policy: "a call is made once" }
        });
        let metadata = cx.each("initial_metadata", initial_metadata, header)?;
        match target_specifier {
            Some(TargetSpecifier::EnvoyGrpc(envoy)) => cx.field("envoy_grpc", |cx| {
                coverage!(cx, envoy => EnvoyGrpc {
                    supported { cluster_name, authority, max_receive_message_length }
                    ignored {
                        retry_policy: "a call is made once",
                        skip_envoy_headers: "no x-envoy headers are sent",
                    }
                });
                Ok(Self {
                    cluster: cluster_name.into(),
                    authority: Some(authority).filter(|a| !a.is_empty()),
                    timeout: timeout.enabled_or(Duration::ZERO),
                    max_message: max_receive_message_length.map(|v| v.value as usize),
                    metadata,
                })
            }),
            Some(TargetSpecifier::GoogleGrpc(_)) => {
                Err(cx.error_at("google_grpc", "not supported: use envoy_grpc with a cluster"))
            }
            None => Err(cx.error_at("target_specifier", "value is required")),
        }
    }

    /// The way to the service, for a generated client.
    pub fn channel(&self, worker: Rc<Worker>) -> ClusterChannel {
        ClusterChannel::new(worker, self.cluster.clone(), self.authority.as_deref())
    }

    /// A call's message, with `initial_metadata`. `timeout` is told to the service.
    pub fn request<T>(&self, message: T, timeout: Option<Duration>) -> Request<T> {
        let mut request = Request::new(message);
        add_metadata(request.metadata_mut(), &self.metadata);
        mark_own(request.metadata_mut(), timeout);
        if let Some(timeout) = timeout
            && let Ok(timeout) = MetadataValue::try_from(format!("{}m", timeout.as_millis()))
        {
            request.metadata_mut().insert("grpc-timeout", timeout);
        }
        request
    }
}

impl Target {
    /// The span of a call of `method` (`package.Service.Method`), which the service is told of. `silent`: it is not
    /// reported.
    pub fn span<T>(&self, parent: Option<&Span>, method: &str, request: &mut Request<T>, silent: bool) -> CallSpan {
        let authority = self.authority.as_deref().unwrap_or(&self.cluster);
        let span = CallSpan::grpc(parent, method, &self.cluster, authority).silent_if(silent);
        if parent.is_some() {
            let mut headers = std::mem::take(request.metadata_mut()).into_headers();
            span.inject(&mut headers);
            *request.metadata_mut() = MetadataMap::from_headers(headers);
        }
        span
    }
}

/// Marks a call as the proxy's own, as Envoy's are.
fn mark_own(headers: &mut MetadataMap, timeout: Option<Duration>) {
    headers.insert("x-envoy-internal", AsciiMetadataValue::from_static("true"));
    if let Ok(address) = AsciiMetadataValue::try_from(local_address().to_string()) {
        headers.insert("x-forwarded-for", address);
    }
    if let Some(timeout) = timeout {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        headers.insert("x-envoy-expected-rq-timeout-ms", millis.into());
    }
}

/// Adds headers to those of a call.
pub fn add_metadata(headers: &mut MetadataMap, metadata: &Metadata) {
    for (key, value) in metadata {
        headers.append(key.clone(), value.clone());
    }
}

/// One of `initial_metadata`.
pub fn header(proto: HeaderValue, cx: &mut BuildCx<'_>) -> ConfigResult<(AsciiMetadataKey, AsciiMetadataValue)> {
    coverage!(cx, proto => HeaderValue { supported { key, value, raw_value } });
    if value.contains('%') {
        return Err(cx.error_at("value", "not supported: formats in headers of side calls"));
    }
    let bytes = match value.is_empty() {
        true => raw_value,
        false => value.into_bytes(),
    };
    let key = AsciiMetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes())
        .map_err(|_| cx.error_at("key", "invalid metadata key"))?;
    let value =
        AsciiMetadataValue::try_from(bytes.as_slice()).map_err(|_| cx.error_at("value", "invalid metadata value"))?;
    Ok((key, value))
}
