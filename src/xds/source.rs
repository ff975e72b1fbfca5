//! `ConfigSource`: where a subscription goes, read once and checked.

use std::{path::PathBuf, time::Duration};

use xds_protos::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService, HeaderValue, PathConfigSource,
    RateLimitSettings, SelfConfigSource, WatchedDirectory,
    api_config_source::ApiType,
    config_source::ConfigSourceSpecifier,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
};

use super::backoff::Backoff;
use crate::config::{BuildCx, ConfigResult, DurationExt, duration};

/// Envoy's `initial_fetch_timeout` when it is not set.
const DEFAULT_INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's `ApiConfigSource.request_timeout` when it is not set.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Where resources come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The aggregated stream (`ads`, and `self`, which stands for the server that said it).
    Ads,
    /// A file.
    File(FileSource),
    /// A gRPC stream of this subscription's own.
    Grpc(GrpcSource),
    /// Polling over HTTP.
    Rest(RestSource),
}

/// `path_config_source`, or the older `path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSource {
    /// A `DiscoveryResponse` in any syntax a bootstrap may have.
    pub path: PathBuf,
    /// The directory in which a move means that the file changed, and whether a write does (`watch_modify`).
    /// Without it the file itself is watched.
    pub watched_directory: Option<(PathBuf, bool)>,
    /// `poll_interval`: reads again also without a notification, where the file system gives none.
    pub poll_interval: Option<Duration>,
}

/// An `ApiConfigSource` over gRPC.
#[derive(Debug, Clone)]
pub(super) struct GrpcSource {
    /// Whether only changes are sent.
    pub delta: bool,
    /// Whether it is the aggregated service.
    pub aggregated: bool,
    /// Where it is.
    pub target: GrpcTarget,
    /// `set_node_on_first_message_only`
    pub node_once: bool,
    /// `rate_limit_settings`: most tokens, tokens per second.
    pub rate_limit: Option<(f64, f64)>,
    /// Base and cap of the waits between streams.
    pub backoff: (Duration, Duration),
}

/// A `GrpcService` that speaks xDS.
#[derive(Debug, Clone)]
pub(super) struct GrpcTarget {
    /// `envoy_grpc.cluster_name`
    pub cluster: String,
    /// `envoy_grpc.authority`; the cluster's name without it.
    pub authority: Option<String>,
    /// `initial_metadata`
    pub metadata: Vec<(http::HeaderName, http::HeaderValue)>,
    /// `envoy_grpc.max_receive_message_length`
    pub max_message: Option<usize>,
}

/// An `ApiConfigSource` over REST.
#[derive(Debug, Clone)]
pub(super) struct RestSource {
    /// The cluster that is asked.
    pub cluster: String,
    /// Between an answer and the next request.
    pub refresh_delay: Duration,
    /// For one request.
    pub request_timeout: Duration,
}

/// What `initial_fetch_timeout` says; zero is for ever.
pub(super) fn initial_fetch_timeout(source: &ConfigSource) -> Duration {
    DurationExt::or_duration(source.initial_fetch_timeout, DEFAULT_INITIAL_FETCH_TIMEOUT)
}

impl Source {
    /// Reads a `ConfigSource`.
    pub fn build(source: ConfigSource, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, source => ConfigSource {
            supported { config_source_specifier, initial_fetch_timeout, resource_api_version }
            ignored { authorities: "xdstp names are asked of the source that is configured" }
        });
        // The timeout is each watch's own; the resource version has one value left, whatever is written.
        let _ = (initial_fetch_timeout, resource_api_version);
        match config_source_specifier {
            Some(ConfigSourceSpecifier::Path(path)) => Ok(Self::File(FileSource {
                path: existing(path, cx)?,
                watched_directory: None,
                poll_interval: None,
            })),
            Some(ConfigSourceSpecifier::PathConfigSource(source)) => {
                cx.field("path_config_source", |cx| file(source, cx)).map(Self::File)
            }
            Some(ConfigSourceSpecifier::ApiConfigSource(source)) => cx.field("api_config_source", |cx| api(source, cx)),
            Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})) => Ok(Self::Ads),
            Some(ConfigSourceSpecifier::Self_(SelfConfigSource {
                transport_api_version: _,
            })) => Ok(Self::Ads),
            None => Err(cx.error("Missing config source specifier in envoy::config::core::v3::ConfigSource")),
        }
    }
}

/// A stream's configuration out of an `ApiConfigSource` (`ads_config`, `api_config_source`).
pub(super) fn api(source: ApiConfigSource, cx: &mut BuildCx<'_>) -> ConfigResult<Source> {
    coverage!(cx, source => ApiConfigSource {
        supported {
            api_type, transport_api_version, cluster_names, grpc_services, refresh_delay, request_timeout,
            rate_limit_settings, set_node_on_first_message_only,
        }
        rejected { config_validators: "external config validators" }
    });
    check_version(transport_api_version, "transport_api_version", cx)?;
    let kind = ApiType::try_from(api_type).unwrap_or(ApiType::DeprecatedAndUnavailableDoNotUse);
    let (delta, aggregated) = match kind {
        ApiType::Rest => {
            let [cluster] = cluster_names.as_slice() else {
                return Err(cx.error_at("cluster_names", "REST must have exactly one cluster name"));
            };
            let Some(refresh_delay) = refresh_delay else {
                return Err(cx.error_at(
                    "refresh_delay",
                    "refresh_delay is required for REST API configuration sources",
                ));
            };
            return Ok(Source::Rest(RestSource {
                cluster: known(cluster, cx)?,
                refresh_delay: duration(&refresh_delay),
                request_timeout: DurationExt::or_duration(request_timeout, DEFAULT_REQUEST_TIMEOUT),
            }));
        }
        ApiType::Grpc => (false, false),
        ApiType::DeltaGrpc => (true, false),
        ApiType::AggregatedGrpc => (false, true),
        ApiType::AggregatedDeltaGrpc => (true, true),
        ApiType::DeprecatedAndUnavailableDoNotUse => return Err(cx.error_at("api_type", "value is required")),
    };
    if !cluster_names.is_empty() {
        return Err(cx.error_at(
            "cluster_names",
            "envoy::config::core::v3::ConfigSource::(DELTA_)GRPC must not have a cluster name specified",
        ));
    }
    // A second service is Envoy's failover, which is off by default there.
    let Some(service) = grpc_services.into_iter().next() else {
        return Err(cx.error_at("grpc_services", "a gRPC service is required"));
    };
    let rate_limit = rate_limit_settings.map(|RateLimitSettings { max_tokens, fill_rate }| {
        (
            f64::from(max_tokens.map_or(100, |v| v.value)),
            fill_rate.map_or(10.0, |v| v.value),
        )
    });
    let (target, backoff) = cx.item("grpc_services", 0, |cx| grpc_service(service, cx))?;
    Ok(Source::Grpc(GrpcSource {
        delta,
        aggregated,
        target,
        node_once: set_node_on_first_message_only,
        rate_limit,
        backoff,
    }))
}

type Waits = (Duration, Duration);

fn grpc_service(service: GrpcService, cx: &mut BuildCx<'_>) -> ConfigResult<(GrpcTarget, Waits)> {
    coverage!(cx, service => GrpcService {
        supported { target_specifier, initial_metadata }
        ignored {
            timeout: "a stream has no end to wait for",
            retry_policy: "streams are opened again with the back-off of envoy_grpc",
        }
    });
    let metadata = cx.each("initial_metadata", initial_metadata, header)?;
    match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => cx.field("envoy_grpc", |cx| envoy_grpc(envoy, metadata, cx)),
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            Err(cx.error_at("google_grpc", "not supported: use envoy_grpc with a cluster"))
        }
        None => Err(cx.error_at("target_specifier", "value is required")),
    }
}

fn envoy_grpc(
    envoy: EnvoyGrpc,
    metadata: Vec<(http::HeaderName, http::HeaderValue)>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(GrpcTarget, Waits)> {
    coverage!(cx, envoy => EnvoyGrpc {
        supported { cluster_name, authority, retry_policy, max_receive_message_length }
        ignored { skip_envoy_headers: "no x-envoy headers are sent to control planes" }
    });
    let back_off = retry_policy.and_then(|p| p.retry_back_off);
    let base = back_off
        .as_ref()
        .and_then(|b| b.base_interval.as_ref())
        .map_or(Backoff::DEFAULT.0, duration);
    // Envoy's cap is ten times the base when only the base is given.
    let max = match &back_off {
        Some(b) => b.max_interval.as_ref().map_or(base * 10, duration),
        None => Backoff::DEFAULT.1,
    };
    if max < base {
        return Err(cx.error_at(
            "retry_policy.retry_back_off",
            "max_interval must be greater than or equal to the base_interval",
        ));
    }
    let target = GrpcTarget {
        cluster: known(&cluster_name, cx)?,
        authority: Some(authority).filter(|a| !a.is_empty()),
        metadata,
        max_message: max_receive_message_length.and_then(|v| usize::try_from(v.value).ok()),
    };
    Ok((target, (base, max)))
}

fn header(header: HeaderValue, cx: &mut BuildCx<'_>) -> ConfigResult<(http::HeaderName, http::HeaderValue)> {
    let HeaderValue { key, value, raw_value } = header;
    let bytes = if value.is_empty() {
        raw_value
    } else {
        value.into_bytes()
    };
    let name = http::HeaderName::try_from(key.as_str()).map_err(|e| cx.error_at("key", e.to_string()))?;
    let value = http::HeaderValue::try_from(bytes).map_err(|e| cx.error_at("value", e.to_string()))?;
    Ok((name, value))
}

fn file(source: PathConfigSource, cx: &mut BuildCx<'_>) -> ConfigResult<FileSource> {
    coverage!(cx, source => PathConfigSource { supported { path, watched_directory, poll_interval } });
    Ok(FileSource {
        path: existing(path, cx)?,
        watched_directory: watched_directory.map(|WatchedDirectory { path, watch_modify }| (path.into(), watch_modify)),
        poll_interval: DurationExt::enabled_or(poll_interval, Duration::ZERO),
    })
}

fn existing(path: String, cx: &BuildCx<'_>) -> ConfigResult<PathBuf> {
    let path = PathBuf::from(path);
    if path.exists() {
        return Ok(path);
    }
    Err(cx.error_at(
        "path",
        format!(
            "paths must refer to an existing path in the system: '{}' does not exist",
            path.display()
        ),
    ))
}

/// A cluster that may carry xDS.
fn known(cluster: &str, cx: &BuildCx<'_>) -> ConfigResult<String> {
    if cluster.is_empty() {
        return Err(cx.error_at("cluster_name", "value length must be at least 1 characters"));
    }
    Ok(cluster.to_owned())
}

fn check_version(version: i32, field: &str, cx: &BuildCx<'_>) -> ConfigResult<()> {
    match ApiVersion::try_from(version) {
        Ok(ApiVersion::V3 | ApiVersion::Auto) => Ok(()),
        _ => Err(cx.error_at(
            field,
            "the V2 xDS transport protocol version is no longer spoken; set it to V3",
        )),
    }
}
