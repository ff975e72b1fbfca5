//! `CommonGrpcAccessLogConfig` -> [`Service`].

use std::time::Duration;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use xds_protos::envoy::{
    config::core::v3::{
        GrpcService, HeaderValue,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
    extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig,
};

use crate::config::{BuildCx, ConfigResult, DurationExt, duration};

/// Whom calls go to.
pub struct Target {
    /// `envoy_grpc.cluster_name`; it need not exist yet.
    pub cluster: String,
    /// `:authority`; the cluster's name without it.
    pub authority: Option<String>,
    /// `timeout` of a call; streams have none.
    pub timeout: Option<Duration>,
    metadata: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
}

impl Target {
    /// Adds `initial_metadata` to a call's headers.
    pub fn add_metadata(&self, headers: &mut MetadataMap) {
        for (key, value) in &self.metadata {
            headers.append(key.clone(), value.clone());
        }
    }
}

/// Where entries go and how they are gathered.
pub struct Service {
    /// `grpc_service`
    pub target: Target,
    /// `log_name`, in the stream's first message.
    pub log_name: String,
    /// `buffer_flush_interval`; 1 s.
    pub flush_interval: Duration,
    /// `buffer_size_bytes`: entries of this size are sent at once; 16384, and 0 sends each.
    pub buffer_size: usize,
}

/// Reads `common_config`. `cx` stands at the logger's configuration.
pub fn common(proto: Option<CommonGrpcAccessLogConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<Service> {
    let Some(proto) = proto else {
        return Err(cx.error_at("common_config", "value is required"));
    };
    cx.field("common_config", |cx| {
        coverage!(cx, proto => CommonGrpcAccessLogConfig {
            supported { log_name, grpc_service, buffer_flush_interval, buffer_size_bytes }
            ignored {
                transport_api_version: "only v3 is spoken",
                grpc_stream_retry_policy: "a stream is opened again at the next flush",
                filter_state_objects_to_log: "filter state is not in the entries",
                custom_tags: "custom tags are not in the entries",
            }
        });
        let Some(service) = grpc_service else {
            return Err(cx.error_at("grpc_service", "value is required"));
        };
        let target = cx.field("grpc_service", |cx| target(service, cx))?;
        Ok(Service {
            target,
            log_name,
            flush_interval: buffer_flush_interval.map_or(Duration::from_secs(1), |d| duration(&d)),
            buffer_size: buffer_size_bytes.map_or(16384, |v| v.value as usize),
        })
    })
}

/// Reads a `GrpcService` whose messages are logs.
pub fn target(service: GrpcService, cx: &mut BuildCx<'_>) -> ConfigResult<Target> {
    coverage!(cx, service => GrpcService {
        supported { target_specifier, initial_metadata, timeout }
        ignored { retry_policy: "logs are sent once" }
    });
    let metadata = cx.each("initial_metadata", initial_metadata, |proto, cx| {
        coverage!(cx, proto => HeaderValue {
            supported { key, value }
            rejected { raw_value: "binary headers of side calls" }
        });
        if value.contains('%') {
            return Err(cx.error_at("value", "not supported: formats in headers of side calls"));
        }
        let key = AsciiMetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes());
        let value = AsciiMetadataValue::try_from(value);
        match (key, value) {
            (Ok(key), Ok(value)) => Ok((key, value)),
            _ => Err(cx.error("not a valid header")),
        }
    })?;
    match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => {
            coverage!(cx, envoy => EnvoyGrpc {
                supported { cluster_name, authority }
                ignored {
                    retry_policy: "logs are sent once",
                    max_receive_message_length: "the answer is empty",
                    skip_envoy_headers: "no x-envoy headers are sent",
                }
            });
            Ok(Target {
                cluster: cluster_name,
                authority: Some(authority).filter(|a| !a.is_empty()),
                timeout: timeout.enabled_or(Duration::ZERO),
                metadata,
            })
        }
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            Err(cx.error_at("google_grpc", "not supported: use envoy_grpc with a cluster"))
        }
        None => Err(cx.error_at("target_specifier", "value is required")),
    }
}
