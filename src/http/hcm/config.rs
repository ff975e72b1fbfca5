//! `HttpConnectionManager` -> [`HcmConfig`].

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use ipnet::IpNet;
use xds_protos::{
    envoy::{
        config::core::v3::{
            SchemeHeaderTransformation, TypedExtensionConfig, http_protocol_options::HeadersWithUnderscoresAction,
            scheme_header_transformation::Transformation,
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager as Proto, Rds,
            http_connection_manager::{
                CodecType as ProtoCodec, InternalAddressConfig, RouteSpecifier, ServerHeaderTransformation,
                StripPortMode,
            },
        },
        extensions::{
            http::early_header_mutation::header_mutation::v3::HeaderMutation as EarlyHeaderMutation,
            request_id::uuid::v3::UuidRequestIdConfig,
        },
    },
    prost::Name,
};

use super::{
    chain::{FilterChainConfig, Upgrade, filter_chain, upgrades},
    forward_proto::ForwardProto,
    local_reply::LocalReplies,
    moments::LogMoments,
    options::{Common, Http1, http2},
    original_ip::IpDetection,
    path::PathOptions,
    proxy_status::ProxyStatus,
    request_id::{RequestIds, Sampling},
    stats::{HcmListenerStats, HcmStats, TracingStats},
    xfcc::Xfcc,
};
use crate::{
    access_log::AccessLogs,
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, duration, plain, unpack},
    http::{
        RequestHead,
        codec::{CodecOptions, CodecType, H1Options, Http1CodecStats, Underscores},
        filter::OnDemandRoutes,
    },
    net::cidr_range,
    route::{HeaderMutationList, RouteTable, ScopeKeyBuilder},
    stats::Stats,
    tracing::Config,
    xds::{
        rds::{RouteConfigs, RouteSlot},
        resources::srds::ScopeSlot,
    },
};

/// Where the route table comes from.
pub enum Routes {
    /// `rds`
    Rds(Arc<RouteSlot>),
    /// `route_config`
    Inline(Arc<RouteTable>),
    /// `scoped_routes`
    Scoped(Arc<ScopeSlot>, ScopeKeyBuilder),
}

impl Routes {
    /// The table for this request as of now; a stream keeps it for its life.
    pub fn load(&self, head: &RequestHead) -> Option<Arc<RouteTable>> {
        match self {
            Self::Scoped(slot, builder) => slot.find(&builder.key(head)?),
            Self::Rds(slot) => slot.load(),
            Self::Inline(table) => Some(table.clone()),
        }
    }

    /// The routes that may grow when they are asked to.
    pub fn on_demand(&self) -> Option<Arc<dyn OnDemandRoutes>> {
        match self {
            Self::Rds(slot) => Some(slot.clone()),
            Self::Inline(_) | Self::Scoped(..) => None,
        }
    }
}

/// A connection manager as configured: immutable, shared by all workers.
pub struct HcmConfig {
    /// `http.<stat_prefix>.`
    pub stats: Stats<HcmStats>,
    /// `http.<stat_prefix>.tracing.*`
    pub tracing_stats: Stats<TracingStats>,
    /// `listener.<stat_prefix>.http.<stat_prefix>.*`
    pub listener_stats: Stats<HcmListenerStats>,
    /// `http1.*`
    pub http1_stats: Stats<Http1CodecStats>,
    /// Codec limits and timers.
    pub codec: CodecOptions,
    /// Route table.
    pub routes: Routes,
    /// HTTP filters.
    pub chain: FilterChainConfig,
    /// Upgrades that are allowed.
    pub upgrades: Vec<Upgrade>,
    /// `stream_idle_timeout`; default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// `request_timeout`
    pub request_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_stream_duration`
    pub max_stream_duration: Option<Duration>,
    /// `access_log`
    pub access_log: AccessLogs,
    /// `access_log_options`: when lines are written besides the end of a stream.
    pub log_moments: LogMoments,
    /// `use_remote_address`
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`
    pub trusted_hops: u32,
    /// `original_ip_detection_extensions`, in order.
    pub ip_detection: Vec<IpDetection>,
    /// `skip_xff_append`
    pub skip_xff_append: bool,
    /// What `x-forwarded-for` gets instead of a loopback address.
    pub local_address: IpAddr,
    /// `append_x_forwarded_port`
    pub append_x_forwarded_port: bool,
    /// `internal_address_config`: ranges; empty: none is internal.
    pub internal_ranges: Vec<IpNet>,
    /// `internal_address_config.unix_sockets`
    pub internal_unix: bool,
    /// `via`
    pub via: Option<HeaderValue>,
    /// `add_user_agent`: the cluster and the id of this node.
    pub user_agent: Option<(HeaderValue, HeaderValue)>,
    /// `server_name` as a header; default `envoy`.
    pub server_name: HeaderValue,
    /// `server_header_transformation`
    pub server_header: ServerHeaderTransformation,
    /// `scheme_header_transformation.scheme_to_overwrite`
    pub scheme_overwrite: Option<crate::http::Scheme>,
    /// `scheme_header_transformation.match_upstream`
    pub scheme_of_upstream: bool,
    /// `generate_request_id`
    pub generate_request_id: bool,
    /// `preserve_external_request_id`
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`
    pub always_set_request_id: bool,
    /// `request_id_extension`
    pub request_ids: RequestIds,
    /// `tracing`: what is sampled; none: nothing is decided.
    pub sampling: Option<Sampling>,
    /// `tracing`: what is told of a request, and to whom.
    pub tracing: Option<Arc<Config>>,
    /// `forward_client_cert_details`, `set_current_client_cert_details`, `forward_client_cert_matcher`
    pub xfcc: Xfcc,
    /// `forward_proto_config`
    pub forward_proto: ForwardProto,
    /// `proxy_status_config`
    pub proxy_status: Option<ProxyStatus>,
    /// `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`
    pub path: PathOptions,
    /// `strip_matching_host_port`
    pub strip_matching_port: bool,
    /// `strip_any_host_port`
    pub strip_any_port: bool,
    /// `strip_trailing_host_dot`
    pub strip_trailing_dot: bool,
    /// `http_protocol_options.default_host_for_http_10`
    pub default_host: Option<HeaderValue>,
    /// `local_reply_config`
    pub local_replies: LocalReplies,
    /// `early_header_mutation_extensions`, in order.
    pub early_mutations: Vec<HeaderMutationList>,
    /// `stream_error_on_invalid_http_message` as it holds for HTTP/1: a 400 does not end the connection.
    pub stream_error: bool,
    /// `proxy_100_continue`: expectations go upstream.
    pub proxy_100_continue: bool,
    /// `append_local_overload`: replies of the overload manager say so.
    pub append_local_overload: bool,
}

impl HcmConfig {
    /// Builds a connection manager with its routes and filters.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                codec_type, stat_prefix, http_filters, add_user_agent, common_http_protocol_options,
                http_protocol_options, http2_protocol_options, server_name, server_header_transformation,
                scheme_header_transformation, max_request_headers_kb, stream_idle_timeout, request_timeout,
                request_headers_timeout, drain_timeout, delayed_close_timeout, access_log, access_log_options,
                flush_access_log_on_new_request, access_log_flush_interval, use_remote_address, original_ip_detection_extensions,
                xff_num_trusted_hops, internal_address_config, skip_xff_append, via, generate_request_id,
                preserve_external_request_id, always_set_request_id_in_response, forward_client_cert_details,
                set_current_client_cert_details, proxy_100_continue, upgrade_configs, normalize_path, merge_slashes,
                path_with_escaped_slashes_action, request_id_extension, local_reply_config, strip_matching_host_port,
                strip_trailing_host_dot, append_x_forwarded_port, route_specifier, strip_port_mode,
                early_header_mutation_extensions, forward_client_cert_matcher, forward_proto_config, proxy_status_config,
                tracing, http1_safe_max_connection_duration, stream_error_on_invalid_http_message,
                stream_flush_timeout, append_local_overload
            }
            ignored {
                path_normalization_options: "Envoy does not read it either",
                http3_protocol_options: "HTTP/3 is not served",
                drain_timeout_jitter: "drains take the full time",
                represent_ipv4_remote_address_as_ipv4_mapped_ipv6: "addresses are shown as they are, as in Envoy",
                add_proxy_protocol_connection_state: "PROXY protocol state is not kept",
            }
            rejected {
                typed_header_validation_config: "header validation extensions",
            }
        });
        let flag = |v: Option<xds_protos::google::protobuf::BoolValue>, default| v.map_or(default, |v| v.value);
        let mut log_moments = LogMoments {
            new_request: flush_access_log_on_new_request,
            tunnel: false,
            interval: access_log_flush_interval
                .as_ref()
                .map(duration)
                .filter(|d| !d.is_zero()),
        };
        if access_log_options.is_some() {
            let old = match () {
                () if flush_access_log_on_new_request => Some("flush_access_log_on_new_request"),
                () if access_log_flush_interval.is_some() => Some("access_log_flush_interval"),
                () => None,
            };
            if let Some(old) = old {
                return Err(cx.error(format!("Only one of {old} or access_log_options can be specified.")));
            }
        }
        if let Some(options) = access_log_options {
            log_moments = cx.field("access_log_options", |cx| LogMoments::build(options, cx))?;
        }
        let request_ids = match request_id_extension.and_then(|e| e.typed_config) {
            None => RequestIds::default(),
            Some(any) => cx.field("request_id_extension.typed_config", |cx| {
                let any = plain(any, cx)?;
                if any.type_name() != UuidRequestIdConfig::full_name() {
                    return Err(cx.error(format!(
                        "Didn't find a registered implementation for type: '{}'",
                        any.type_name()
                    )));
                }
                RequestIds::build(unpack(&any, cx)?, cx)
            })?,
        };
        let strip_any_port = matches!(strip_port_mode, Some(StripPortMode::StripAnyHostPort(true)));
        if strip_any_port && strip_matching_host_port {
            return Err(cx.error("Error: Only one of `strip_matching_host_port` or `strip_any_host_port` can be set."));
        }
        let ip_detection = cx.each(
            "original_ip_detection_extensions",
            original_ip_detection_extensions,
            IpDetection::build,
        )?;
        if !ip_detection.is_empty() && use_remote_address.is_some_and(|v| v.value) {
            return Err(cx.error("Original IP detection extensions and use_remote_address may not be mixed"));
        }
        if !ip_detection.is_empty() && xff_num_trusted_hops > 0 {
            return Err(cx.error("Original IP detection extensions and xff_num_trusted_hops may not be mixed"));
        }
        let stat_prefix = format!("http.{stat_prefix}.");
        cx.http_prefix.clone_from(&stat_prefix);
        let routes = routes(route_specifier, &stat_prefix, cx)?;
        let common = cx.field("common_http_protocol_options", |cx| {
            Common::build(common_http_protocol_options.unwrap_or_default(), cx)
        })?;
        let http1 = cx.field("http_protocol_options", |cx| {
            Http1::build(http_protocol_options.unwrap_or_default(), cx)
        })?;
        let h2 = cx.field("http2_protocol_options", |cx| {
            http2(http2_protocol_options.unwrap_or_default(), cx)
        })?;
        let server_header = ServerHeaderTransformation::try_from(server_header_transformation).unwrap_or_default();
        let server_name = header(
            "server_name",
            if server_name.is_empty() { "envoy" } else { &server_name },
            cx,
        )?;
        let (internal_ranges, internal_unix) = cx
            .opt("internal_address_config", internal_address_config, internal_addresses)?
            .unwrap_or_default();
        let proxy_status = cx.opt("proxy_status_config", proxy_status_config, |proto, cx| {
            ProxyStatus::build(proto, server_name.to_str().unwrap_or_default(), cx)
        })?;
        let stream_idle = stream_idle_timeout.enabled_or(Duration::from_secs(300));
        let (sampling, tracing) = cx.opt("tracing", tracing, super::tracing::build)?.unzip();
        let tracing = tracing.map(Arc::new);
        let chain = filter_chain("http_filters", http_filters, &stat_prefix, cx)?;
        let (scheme_overwrite, scheme_of_upstream) = cx
            .opt("scheme_header_transformation", scheme_header_transformation, scheme)?
            .unwrap_or_default();
        let via = if via.is_empty() {
            None
        } else {
            Some(header("via", &via, cx)?)
        };
        let user_agent = match flag(add_user_agent, false) {
            true => Some((
                header("add_user_agent", &cx.server.node.cluster, cx)?,
                header("add_user_agent", &cx.server.node.id, cx)?,
            )),
            false => None,
        };
        let default_host = match http1.default_host_for_http_10.as_str() {
            "" => None,
            host => Some(header("default_host_for_http_10", host, cx)?),
        };
        Ok(Self {
            stats: cx.server.stats.scope(&stat_prefix).block(),
            tracing_stats: cx.server.stats.scope(&stat_prefix).block(),
            listener_stats: {
                let listener = cx.listener_prefix.as_deref().unwrap_or_default();
                cx.server.stats.scope(&format!("{listener}{stat_prefix}")).block()
            },
            http1_stats: cx.server.stats.scope("").block(),
            codec: CodecOptions {
                codec: match ProtoCodec::try_from(codec_type) {
                    Ok(ProtoCodec::Http1) => CodecType::Http1,
                    Ok(ProtoCodec::Http2) => CodecType::Http2,
                    Ok(ProtoCodec::Http3) => return Err(cx.error("HTTP/3 codec configured on non-QUIC listener.")),
                    Ok(ProtoCodec::Auto) | Err(_) => CodecType::Auto,
                },
                h1: H1Options {
                    max_header_bytes: max_request_headers_kb
                        .map_or_else(|| default_headers_kb(cx), |v| v.value as usize)
                        * 1024,
                    max_headers: common.max_headers,
                    underscores: match common.underscores {
                        HeadersWithUnderscoresAction::Allow => Underscores::Allow,
                        HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
                        HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
                    },
                    accept_http_10: http1.accept_http_10,
                    absolute_urls: http1.absolute_urls,
                    checks_scheme: flag(use_remote_address, false) && xff_num_trusted_hops == 0,
                    custom_methods: http1.custom_methods,
                    enable_trailers: http1.enable_trailers,
                    case: http1.case,
                    allow_chunked_length: http1.allow_chunked_length,
                    ignored_upgrades: http1.ignored_upgrades,
                },
                idle_timeout: common.idle_timeout,
                max_connection_duration: common.max_connection_duration,
                safe_max_duration: http1_safe_max_connection_duration,
                headers_timeout: request_headers_timeout.enabled_or(Duration::ZERO),
                drain_timeout: drain_timeout.or_duration(Duration::from_secs(5)),
                delayed_close: delayed_close_timeout.enabled_or(Duration::from_secs(1)),
                stream_idle_timeout: stream_idle,
                flush_timeout: match &stream_flush_timeout {
                    Some(timeout) => Some(duration(timeout)).filter(|d| !d.is_zero()),
                    None => stream_idle,
                },
                max_requests: common.max_requests,
                h2,
            },
            routes,
            chain,
            upgrades: upgrades(upgrade_configs, &stat_prefix, cx)?,
            stream_idle_timeout: stream_idle,
            request_timeout: request_timeout.enabled_or(Duration::ZERO),
            max_stream_duration: common.max_stream_duration,
            access_log: cx.field("access_log", |cx| AccessLogs::build(access_log, cx))?,
            log_moments,
            use_remote_address: flag(use_remote_address, false),
            trusted_hops: xff_num_trusted_hops,
            ip_detection,
            skip_xff_append,
            local_address: crate::net::local_address(),
            append_x_forwarded_port,
            internal_ranges,
            internal_unix,
            via,
            user_agent,
            server_name,
            server_header,
            scheme_overwrite,
            scheme_of_upstream,
            generate_request_id: flag(generate_request_id, true),
            preserve_external_request_id,
            always_set_request_id: always_set_request_id_in_response,
            request_ids,
            sampling,
            tracing,
            xfcc: Xfcc::build(
                forward_client_cert_details,
                set_current_client_cert_details,
                forward_client_cert_matcher,
                cx,
            )?,
            forward_proto: cx
                .opt("forward_proto_config", forward_proto_config, ForwardProto::build)?
                .unwrap_or_default(),
            proxy_status,
            path: PathOptions::build(
                normalize_path.map(|v| v.value),
                merge_slashes,
                path_with_escaped_slashes_action,
                cx,
            ),
            strip_matching_port: strip_matching_host_port,
            strip_any_port,
            strip_trailing_dot: strip_trailing_host_dot,
            default_host,
            local_replies: cx.field("local_reply_config", |cx| LocalReplies::build(local_reply_config, cx))?,
            early_mutations: cx.each(
                "early_header_mutation_extensions",
                early_header_mutation_extensions,
                early_mutation,
            )?,
            stream_error: http1
                .stream_error
                .unwrap_or_else(|| flag(stream_error_on_invalid_http_message, false)),
            append_local_overload,
            proxy_100_continue,
        })
    }
}

/// The runtime may know better than Envoy's default; not more than may be configured.
fn default_headers_kb(cx: &BuildCx<'_>) -> usize {
    let key = cx
        .server
        .runtime
        .key("envoy.reloadable_features.max_request_headers_size_kb");
    usize::try_from(key.integer(60).min(8192)).unwrap_or(60)
}

fn header(field: &str, value: &str, cx: &BuildCx<'_>) -> ConfigResult<HeaderValue> {
    HeaderValue::from_str(value).map_err(|_| cx.error_at(field, "not a valid header value"))
}

fn routes(specifier: Option<RouteSpecifier>, stat_prefix: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Routes> {
    match specifier {
        Some(RouteSpecifier::Rds(rds)) => cx.field("rds", |cx| {
            coverage!(cx, rds => Rds { supported { config_source, route_config_name } });
            let Some(source) = config_source else {
                return Err(cx.error_at("config_source", "value is required"));
            };
            RouteConfigs::subscribe(&route_config_name, &source, stat_prefix, cx).map(Routes::Rds)
        }),
        Some(RouteSpecifier::RouteConfig(config)) => {
            let server = cx.server;
            let has_cluster = |name: &str| server.clusters.contains(name);
            cx.field("route_config", |cx| {
                let table = RouteTable::build_with(config.clone(), true, &has_cluster, cx)?;
                server.xds.routes.add_inline(&config, &table);
                Ok(Routes::Inline(table))
            })
        }
        Some(RouteSpecifier::ScopedRoutes(scoped)) => {
            let (slot, builder) = cx.field("scoped_routes", |cx| ScopeSlot::build(scoped, stat_prefix, cx))?;
            Ok(Routes::Scoped(slot, builder))
        }
        None => Err(cx.error_at("route_specifier", "value is required")),
    }
}

/// The scheme to overwrite with, and whether it is the upstream's.
fn scheme(
    proto: SchemeHeaderTransformation,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Option<crate::http::Scheme>, bool)> {
    coverage!(cx, proto => SchemeHeaderTransformation { supported { transformation, match_upstream } });
    let overwrite = match transformation {
        None => None,
        Some(Transformation::SchemeToOverwrite(s)) if s == "http" => Some(crate::http::Scheme::Http),
        Some(Transformation::SchemeToOverwrite(s)) if s == "https" => Some(crate::http::Scheme::Https),
        Some(Transformation::SchemeToOverwrite(s)) => {
            return Err(cx.error_at(
                "scheme_to_overwrite",
                format!("value must be in list [http https], got {s}"),
            ));
        }
    };
    Ok((overwrite, match_upstream))
}

fn internal_addresses(proto: InternalAddressConfig, cx: &mut BuildCx<'_>) -> ConfigResult<(Vec<IpNet>, bool)> {
    coverage!(cx, proto => InternalAddressConfig { supported { unix_sockets, cidr_ranges } });
    let ranges = cx.each("cidr_ranges", cidr_ranges, cidr_range)?;
    Ok((ranges, unix_sockets))
}

/// `envoy.http.early_header_mutation.header_mutation`, the only extension of its kind.
fn early_mutation(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<HeaderMutationList> {
    coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
    let any = plain(typed_config.unwrap_or_default(), cx)?;
    if any.type_name() != EarlyHeaderMutation::full_name() {
        return Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{}'",
            any.type_name()
        )));
    }
    cx.field("typed_config", |cx| {
        let proto = unpack::<EarlyHeaderMutation>(&any, cx)?;
        coverage!(cx, proto => EarlyHeaderMutation { supported { mutations } });
        HeaderMutationList::build("mutations", mutations, cx)
    })
}
