//! Protocol options of a connection manager -> [`CodecOptions`].

use std::{sync::Arc, time::Duration};

use xds_protos::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
    http_protocol_options::HeadersWithUnderscoresAction,
};

use crate::{
    config::{BuildCx, ConfigResult, DurationExt, duration},
    http::codec::{FloodLimits, H2Options, HeaderCase, Keepalive},
    matching::StringMatcher,
};

/// `common_http_protocol_options`
pub(super) struct Common {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_stream_duration: Option<Duration>,
    pub(super) max_headers: usize,
    pub(super) max_requests: Option<u32>,
    pub(super) underscores: HeadersWithUnderscoresAction,
}

impl Common {
    pub(super) fn build(proto: HttpProtocolOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HttpProtocolOptions {
            supported {
                idle_timeout, max_connection_duration, max_headers_count, max_stream_duration,
                headers_with_underscores_action, max_requests_per_connection
            }
            ignored {
                max_connection_duration_jitter: "connections end at the full duration",
                max_response_headers_kb: "only upstream responses have this limit",
            }
        });
        Ok(Self {
            idle_timeout: idle_timeout.enabled_or(Duration::from_secs(3600)),
            max_connection_duration: max_connection_duration.enabled_or(Duration::ZERO),
            max_stream_duration: max_stream_duration.enabled_or(Duration::ZERO),
            max_headers: match max_headers_count {
                Some(count) => count.value as usize,
                None => {
                    let key = cx
                        .server
                        .runtime
                        .key("envoy.reloadable_features.max_request_headers_count");
                    usize::try_from(key.integer(100)).unwrap_or(100)
                }
            },
            max_requests: max_requests_per_connection.map(|v| v.value).filter(|n| *n > 0),
            underscores: HeadersWithUnderscoresAction::try_from(headers_with_underscores_action).unwrap_or_default(),
        })
    }
}

/// `http_protocol_options`
pub(super) struct Http1 {
    pub(super) case: HeaderCase,
    pub(super) allow_chunked_length: bool,
    pub(super) accept_http_10: bool,
    pub(super) custom_methods: bool,
    pub(super) enable_trailers: bool,
    pub(super) default_host_for_http_10: String,
    pub(super) absolute_urls: bool,
    pub(super) stream_error: Option<bool>,
    pub(super) ignored_upgrades: Arc<[StringMatcher]>,
}

impl Http1 {
    pub(super) fn build(proto: Http1ProtocolOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Http1ProtocolOptions {
            supported {
                allow_absolute_url, accept_http_10, default_host_for_http_10, header_key_format, enable_trailers,
                allow_custom_methods, allow_chunked_length, override_stream_error_on_invalid_http_message,
                ignore_http_11_upgrade
            }
            ignored {
                use_balsa_parser: "there is one parser",
                send_fully_qualified_url: "it concerns clients",
            }
        });
        let case = cx.opt("header_key_format", header_key_format, HeaderCase::build)?;
        Ok(Self {
            case: case.unwrap_or_default(),
            allow_chunked_length,
            accept_http_10,
            custom_methods: allow_custom_methods,
            enable_trailers,
            default_host_for_http_10,
            absolute_urls: allow_absolute_url.is_none_or(|v| v.value),
            ignored_upgrades: cx
                .each("ignore_http_11_upgrade", ignore_http_11_upgrade, StringMatcher::build)?
                .into(),
            stream_error: override_stream_error_on_invalid_http_message.map(|v| v.value),
        })
    }
}

/// `http2_protocol_options`
pub(super) fn http2(proto: Http2ProtocolOptions, cx: &mut BuildCx<'_>) -> ConfigResult<H2Options> {
    coverage!(cx, proto => Http2ProtocolOptions {
        supported {
            hpack_table_size, max_concurrent_streams, initial_stream_window_size, initial_connection_window_size,
            allow_connect, connection_keepalive, max_consecutive_inbound_frames_with_empty_payload,
            max_inbound_priority_frames_per_stream, max_inbound_window_update_frames_per_data_frame_sent,
            stream_error_on_invalid_http_messaging, override_stream_error_on_invalid_http_message
        }
        ignored {
            allow_metadata: "METADATA frames are dropped",
            max_outbound_frames: "nothing is queued that the client's window or socket has no room for",
            max_outbound_control_frames: "no frame is read while the answer to the last one cannot be written",
            use_oghttp2_codec: "there is one codec",
            max_metadata_size: "METADATA frames are dropped",
            enable_huffman_encoding: "always on",
            max_header_field_size_kb: "max_request_headers_kb bounds all of them",
            disallow_obs_text: "a matter of strictness towards the client",
            stream_reset_burst: "the codec has its own bound",
            stream_reset_rate: "the codec has its own bound",
        }
        rejected { custom_settings_parameters: "settings of one's own" }
    });
    let defaults = H2Options::default();
    Ok(H2Options {
        max_streams: max_concurrent_streams.map_or(defaults.max_streams, |v| v.value),
        stream_window: initial_stream_window_size.map_or(defaults.stream_window, |v| v.value),
        connection_window: initial_connection_window_size.map_or(defaults.connection_window, |v| v.value),
        header_table: hpack_table_size.map_or(defaults.header_table, |v| v.value),
        allow_connect,
        keepalive: cx.opt("connection_keepalive", connection_keepalive, keepalive)?,
        floods: FloodLimits {
            empty_frames: max_consecutive_inbound_frames_with_empty_payload
                .map_or(defaults.floods.empty_frames, |v| v.value),
            priority_per_stream: max_inbound_priority_frames_per_stream
                .map_or(defaults.floods.priority_per_stream, |v| v.value),
            window_updates_per_data: max_inbound_window_update_frames_per_data_frame_sent
                .map_or(defaults.floods.window_updates_per_data, |v| v.value),
        },
        // The newer field wins.
        stream_errors: override_stream_error_on_invalid_http_message
            .map_or(stream_error_on_invalid_http_messaging, |v| v.value),
    })
}

/// `connection_keepalive`
fn keepalive(proto: KeepaliveSettings, cx: &mut BuildCx<'_>) -> ConfigResult<Keepalive> {
    coverage!(cx, proto => KeepaliveSettings {
        supported { interval, timeout, interval_jitter, connection_idle_interval }
    });
    let positive = |d: Option<xds_protos::google::protobuf::Duration>| d.map(|d| duration(&d)).filter(|d| !d.is_zero());
    Ok(Keepalive {
        interval: positive(interval),
        timeout: timeout.or_duration(Duration::from_secs(20)),
        jitter: interval_jitter.map_or(15.0, |p| p.value),
        idle_interval: positive(connection_idle_interval),
    })
}
