//! `HttpProtocolOptions` and the deprecated fields on `Cluster` to what pools need.

use std::{collections::HashMap, sync::Arc, time::Duration};

use xds_protos::{
    envoy::{
        config::core::v3::{
            Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as Common, KeepaliveSettings,
            UpstreamHttpProtocolOptions,
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                AutoHttpConfig, ExplicitHttpConfig, OutlierDetection, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
    },
    google::protobuf::{Any, Struct, UInt32Value},
    xds::r#type::v3::TypedStruct,
};

use super::{
    http_filters::{UpstreamHttpFilters, http_filter_chain},
    policies::RequestPolicies,
};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, plain, unpack},
    http::codec::{FloodLimits, HeaderCase, Keepalive},
    matching::ResponsePredicate,
};

/// The key of these options: they are found by it, whatever type stands below.
const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Keys of options that Envoy has for filters that are not built here, whose clusters serve others all the same.
const ELSEWHERE: [&str; 5] = [
    "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions",
    "envoy.filters.network.generic_proxy",
    "envoy.filters.network.redis_proxy",
    "envoy.filters.network.sip_proxy",
    "envoy.filters.network.thrift_proxy",
];

/// Which HTTP version goes upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpProtocol {
    /// HTTP/1.1
    #[default]
    Http1,
    /// HTTP/2, with prior knowledge on plain text.
    Http2,
    /// What ALPN settles (`auto_config`); HTTP/1.1 on plain text.
    Auto,
    /// What the client spoke (`use_downstream_protocol_config`).
    Downstream,
}

/// HTTP/1.1 options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http1Options {
    /// `header_key_format`
    pub case: HeaderCase,
    /// `enable_trailers`
    pub trailers: bool,
    /// `send_fully_qualified_url`
    pub absolute_url: bool,
    /// `allow_chunked_length`
    pub allow_chunked_length: bool,
}

/// HTTP/2 options.
///
/// Windows are smaller than Envoy's defaults (which are 16 MiB and 24 MiB since 1.35): a pooled connection pins
/// what its window allows, and bodies are read as fast as the client takes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Http2Options {
    /// `hpack_table_size`, 4096
    pub hpack_table_size: u32,
    /// `max_concurrent_streams`, 1024: streams per connection at most, whatever the upstream allows.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size`, 256 KiB here
    pub stream_window: u32,
    /// `initial_connection_window_size`, 1 MiB here
    pub connection_window: u32,
    /// `connection_keepalive`
    pub keepalive: Option<Keepalive>,
    /// What an upstream may send that carries nothing.
    pub floods: FloodLimits,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            keepalive: None,
            floods: FloodLimits::default(),
        }
    }
}

/// Everything HTTP of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpOptions {
    /// Which version.
    pub protocol: HttpProtocol,
    /// HTTP/1.1
    pub http1: Http1Options,
    /// HTTP/2
    pub http2: Http2Options,
    /// `idle_timeout`, 1 hour; none for ever.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `max_requests_per_connection`; none without limit.
    pub max_requests_per_connection: Option<u32>,
    /// `max_headers_count`, 100
    pub max_headers_count: u32,
    /// `max_response_headers_kb` of HTTP/2, 60
    pub max_response_headers_kb: u32,
    /// `max_response_headers_kb` of HTTP/1, 80
    pub http1_headers_kb: u32,
    /// `max_stream_duration`
    pub max_stream_duration: Option<Duration>,
    /// `auto_sni`
    pub auto_sni: bool,
    /// `auto_san_validation`
    pub auto_san_validation: bool,
    /// `override_auto_sni_header`, lower-case; empty: the host.
    pub override_auto_sni_header: String,
    /// `http_filters`, without the codec; empty: the router's.
    pub filters: UpstreamHttpFilters,
    /// What replaces the policies of routes.
    pub policies: RequestPolicies,
    /// `outlier_detection.error_matcher`: which responses are errors of the host, instead of 5xx.
    pub error_matcher: Option<Arc<ResponsePredicate>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            protocol: HttpProtocol::default(),
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_headers_count: 100,
            max_response_headers_kb: 60,
            http1_headers_kb: 80,
            max_stream_duration: None,
            auto_sni: false,
            auto_san_validation: false,
            override_auto_sni_header: String::new(),
            filters: UpstreamHttpFilters::default(),
            policies: RequestPolicies::default(),
            error_matcher: None,
        }
    }
}

/// What a cluster says of HTTP: `typed_extension_protocol_options`, and the deprecated fields.
pub type Parts = (HashMap<String, Any>, Legacy);

/// The deprecated fields on `Cluster`, used when the extension is not there.
#[derive(Clone, PartialEq)]
pub struct Legacy {
    /// `protocol_selection`
    pub selection: i32,
    /// `upstream_http_protocol_options`
    pub upstream: Option<UpstreamHttpProtocolOptions>,
    /// `common_http_protocol_options`
    pub common: Option<Common>,
    /// `http_protocol_options`
    pub http1: Option<Http1ProtocolOptions>,
    /// `http2_protocol_options`
    pub http2: Option<Http2ProtocolOptions>,
    /// `max_requests_per_connection`
    pub max_requests_per_connection: Option<UInt32Value>,
}

/// Reads the extension, or the deprecated fields.
pub fn build(extensions: HashMap<String, Any>, legacy: Legacy, cx: &mut BuildCx<'_>) -> ConfigResult<HttpOptions> {
    let mut out = HttpOptions::default();
    let mut found = false;
    for (name, any) in extensions {
        let path = format!("typed_extension_protocol_options[{name}]");
        cx.field(&path, |cx| {
            if name == EXTENSION {
                found = true;
                return extension(options_of(&any, cx)?, &mut out, cx);
            }
            if ELSEWHERE.contains(&name.as_str()) {
                cx.ignored("", "protocol options of a filter that is not built in");
                return Ok(());
            }
            Err(cx.error(format!(
                "Didn't find a registered network or http filter or protocol options implementation for name: '{name}'"
            )))
        })?;
    }
    if !found {
        deprecated(legacy, &mut out, cx)?;
    }
    Ok(out)
}

/// The options in `any`. As in Envoy an empty one stands for the empty message, and a `Struct` for its JSON form.
fn options_of(any: &Any, cx: &BuildCx<'_>) -> ConfigResult<HttpProtocolOptions> {
    let stand_in = match any.type_name() {
        "" if any.value.is_empty() => Some(Any {
            type_url: xds_protos::type_url::<HttpProtocolOptions>(),
            value: Vec::new(),
        }),
        "google.protobuf.Struct" => {
            let value: Struct = unpack(any, cx)?;
            let typed = TypedStruct {
                type_url: xds_protos::type_url::<HttpProtocolOptions>(),
                value: Some(value),
            };
            Some(plain(xds_protos::any::pack(&typed), cx)?)
        }
        _ => None,
    };
    unpack(stand_in.as_ref().unwrap_or(any), cx)
}

fn deprecated(legacy: Legacy, out: &mut HttpOptions, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    out.protocol = match (legacy.selection, &legacy.http2) {
        // USE_DOWNSTREAM_PROTOCOL
        (1, _) => HttpProtocol::Downstream,
        (_, Some(_)) => HttpProtocol::Http2,
        _ => HttpProtocol::Http1,
    };
    if let Some(proto) = legacy.upstream {
        cx.field("upstream_http_protocol_options", |cx| upstream(proto, out, cx))?;
    }
    if let Some(proto) = legacy.common {
        cx.field("common_http_protocol_options", |cx| common(proto, out, cx))?;
    }
    if let Some(proto) = legacy.http1 {
        out.http1 = cx.field("http_protocol_options", |cx| http1(proto, cx))?;
    }
    if let Some(proto) = legacy.http2 {
        out.http2 = cx.field("http2_protocol_options", |cx| http2(proto, cx))?;
    }
    if let Some(max) = legacy.max_requests_per_connection {
        out.max_requests_per_connection = Some(max.value).filter(|v| *v > 0);
    }
    Ok(())
}

fn extension(proto: HttpProtocolOptions, out: &mut HttpOptions, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    coverage!(cx, proto => HttpProtocolOptions {
        supported {
            common_http_protocol_options, upstream_http_protocol_options, http_filters, upstream_protocol_options,
            retry_policy, hash_policy, request_mirror_policies, outlier_detection
        }
        ignored {
            header_validation_config: "the codec's own header checks apply",
        }
    });
    let error_matcher = outlier_detection.and_then(|OutlierDetection { error_matcher }| error_matcher);
    out.error_matcher = cx
        .opt(
            "outlier_detection.error_matcher",
            error_matcher,
            ResponsePredicate::build,
        )?
        .map(Arc::new);
    out.filters = http_filter_chain("http_filters", http_filters, cx)?;
    out.policies = RequestPolicies::build(retry_policy, hash_policy, request_mirror_policies, cx)?;
    if let Some(proto) = common_http_protocol_options {
        cx.field("common_http_protocol_options", |cx| common(proto, out, cx))?;
    }
    if let Some(proto) = upstream_http_protocol_options {
        cx.field("upstream_http_protocol_options", |cx| upstream(proto, out, cx))?;
    }
    match upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config })) => {
            cx.field("explicit_http_config", |cx| match protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(proto)) => {
                    out.protocol = HttpProtocol::Http1;
                    out.http1 = cx.field("http_protocol_options", |cx| http1(proto, cx))?;
                    Ok(())
                }
                Some(ProtocolConfig::Http2ProtocolOptions(proto)) => {
                    out.protocol = HttpProtocol::Http2;
                    out.http2 = cx.field("http2_protocol_options", |cx| http2(proto, cx))?;
                    Ok(())
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    Err(cx.error_at("http3_protocol_options", "not supported: HTTP/3 upstream"))
                }
                None => Err(cx.error("protocol_config: value is required")),
            })
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(proto)) => {
            cx.field("use_downstream_protocol_config", |cx| {
                coverage!(cx, proto => UseDownstreamHttpConfig {
                    supported { http_protocol_options, http2_protocol_options }
                    ignored { http3_protocol_options: "HTTP/3 clients are served over HTTP/2 upstream" }
                });
                out.protocol = HttpProtocol::Downstream;
                both(http_protocol_options, http2_protocol_options, out, cx)
            })
        }
        Some(UpstreamProtocolOptions::AutoConfig(proto)) => cx.field("auto_config", |cx| {
            coverage!(cx, proto => AutoHttpConfig {
                supported { http_protocol_options, http2_protocol_options }
                ignored {
                    http3_protocol_options: "ALPN settles on HTTP/2 or HTTP/1.1",
                    alternate_protocols_cache_options: "ALPN settles on HTTP/2 or HTTP/1.1"
                }
            });
            out.protocol = HttpProtocol::Auto;
            both(http_protocol_options, http2_protocol_options, out, cx)
        }),
        None => Err(cx.error_at("upstream_protocol_options", "value is required")),
    }
}

fn both(
    one: Option<Http1ProtocolOptions>,
    two: Option<Http2ProtocolOptions>,
    out: &mut HttpOptions,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<()> {
    if let Some(proto) = one {
        out.http1 = cx.field("http_protocol_options", |cx| http1(proto, cx))?;
    }
    if let Some(proto) = two {
        out.http2 = cx.field("http2_protocol_options", |cx| http2(proto, cx))?;
    }
    Ok(())
}

fn common(proto: Common, out: &mut HttpOptions, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    coverage!(cx, proto => Common {
        supported {
            idle_timeout, max_connection_duration, max_headers_count, max_response_headers_kb, max_stream_duration,
            max_requests_per_connection
        }
        ignored {
            max_connection_duration_jitter: "connections end at their maximum duration",
            headers_with_underscores_action: "it concerns requests, and these are checked downstream"
        }
    });
    out.idle_timeout = idle_timeout.enabled_or(Duration::from_secs(3600));
    out.max_connection_duration = max_connection_duration.enabled_or(Duration::ZERO);
    out.max_stream_duration = max_stream_duration.enabled_or(Duration::ZERO);
    if let Some(v) = max_headers_count {
        out.max_headers_count = v.value;
    }
    if let Some(v) = max_response_headers_kb {
        out.max_response_headers_kb = v.value;
        out.http1_headers_kb = v.value;
    }
    out.max_requests_per_connection = max_requests_per_connection.map(|v| v.value).filter(|v| *v > 0);
    Ok(())
}

fn upstream(proto: UpstreamHttpProtocolOptions, out: &mut HttpOptions, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    coverage!(cx, proto => UpstreamHttpProtocolOptions {
        supported { auto_sni, auto_san_validation, override_auto_sni_header }
    });
    out.auto_sni = auto_sni;
    out.auto_san_validation = auto_san_validation;
    out.override_auto_sni_header = override_auto_sni_header.to_ascii_lowercase();
    Ok(())
}

fn http1(proto: Http1ProtocolOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Http1Options> {
    coverage!(cx, proto => Http1ProtocolOptions {
        supported { header_key_format, enable_trailers, send_fully_qualified_url, allow_chunked_length }
        ignored {
            allow_absolute_url: "it concerns servers",
            accept_http_10: "it concerns servers",
            default_host_for_http_10: "it concerns servers",
            override_stream_error_on_invalid_http_message: "an invalid response ends its connection",
            use_balsa_parser: "there is one parser",
            allow_custom_methods: "custom methods are passed on",
            ignore_http_11_upgrade: "it concerns servers"
        }
    });
    let case = cx.opt("header_key_format", header_key_format, HeaderCase::build)?;
    Ok(Http1Options {
        case: case.unwrap_or_default(),
        trailers: enable_trailers,
        absolute_url: send_fully_qualified_url,
        allow_chunked_length,
    })
}

fn http2(proto: Http2ProtocolOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Http2Options> {
    coverage!(cx, proto => Http2ProtocolOptions {
        supported {
            hpack_table_size, max_concurrent_streams, initial_stream_window_size, initial_connection_window_size,
            connection_keepalive, max_consecutive_inbound_frames_with_empty_payload,
            max_inbound_priority_frames_per_stream, max_inbound_window_update_frames_per_data_frame_sent
        }
        ignored {
            allow_connect: "extended CONNECT is used where the upstream allows it",
            allow_metadata: "METADATA frames are not sent",
            max_outbound_frames: "nothing is queued that the upstream's window or socket has no room for",
            max_outbound_control_frames: "no frame is read while the answer to the last one cannot be written",
            stream_error_on_invalid_http_messaging: "an invalid response ends its stream",
            override_stream_error_on_invalid_http_message: "an invalid response ends its stream",
            custom_settings_parameters: "only the settings above are sent",
            use_oghttp2_codec: "there is one codec",
            max_metadata_size: "METADATA frames are not read",
            enable_huffman_encoding: "the codec decides",
            max_header_field_size_kb: "the size of all headers is limited",
            disallow_obs_text: "it concerns servers",
            stream_reset_burst: "it concerns servers",
            stream_reset_rate: "it concerns servers"
        }
    });
    let defaults = Http2Options::default();
    let or = |v: Option<UInt32Value>, default: u32| v.map_or(default, |v| v.value);
    let keepalive = match connection_keepalive {
        Some(settings) => cx.field("connection_keepalive", |cx| keepalive(settings, cx))?,
        None => None,
    };
    Ok(Http2Options {
        hpack_table_size: or(hpack_table_size, defaults.hpack_table_size),
        max_concurrent_streams: or(max_concurrent_streams, defaults.max_concurrent_streams),
        stream_window: or(initial_stream_window_size, defaults.stream_window),
        connection_window: or(initial_connection_window_size, defaults.connection_window),
        keepalive,
        floods: FloodLimits {
            empty_frames: or(
                max_consecutive_inbound_frames_with_empty_payload,
                defaults.floods.empty_frames,
            ),
            priority_per_stream: or(
                max_inbound_priority_frames_per_stream,
                defaults.floods.priority_per_stream,
            ),
            window_updates_per_data: or(
                max_inbound_window_update_frames_per_data_frame_sent,
                defaults.floods.window_updates_per_data,
            ),
        },
    })
}

fn keepalive(proto: KeepaliveSettings, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Keepalive>> {
    coverage!(cx, proto => KeepaliveSettings {
        supported { interval, timeout, interval_jitter, connection_idle_interval }
    });
    let interval = interval.enabled_or(Duration::ZERO);
    let idle_interval = connection_idle_interval.enabled_or(Duration::ZERO);
    if interval.is_none() && idle_interval.is_none() {
        return Ok(None);
    }
    let Some(timeout) = timeout.enabled_or(Duration::ZERO) else {
        return Err(cx.error_at("timeout", "value is required"));
    };
    Ok(Some(Keepalive {
        interval,
        timeout,
        jitter: interval_jitter.map_or(15.0, |p| p.value),
        idle_interval,
    }))
}
