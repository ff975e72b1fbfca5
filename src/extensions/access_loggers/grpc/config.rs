//! `CommonGrpcAccessLogConfig` -> [`Service`].

use std::time::Duration;

use xds_protos::envoy::extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig;

use crate::{
    config::{BuildCx, ConfigResult, duration},
    extensions::grpc_service::Target,
};

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
        let target = cx.required("grpc_service", grpc_service, Target::build)?;
        Ok(Service {
            target,
            log_name,
            flush_interval: buffer_flush_interval.map_or(Duration::from_secs(1), |d| duration(&d)),
            buffer_size: buffer_size_bytes.map_or(16384, |v| v.value as usize),
        })
    })
}
