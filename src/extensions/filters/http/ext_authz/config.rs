//! `ExtAuthz` and `ExtAuthzPerRoute`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::StatusCode;
use xds_protos::envoy::{
    config::core::v3::GrpcService,
    extensions::filters::http::ext_authz::v3::{
        BufferSettings as BufferProto, CheckSettings, ExtAuthz as Proto, ExtAuthzPerRoute,
        check_settings::ServiceOverride, ext_authz::Services, ext_authz_per_route::Override,
    },
    r#type::{matcher::v3::ListStringMatcher, v3::HttpStatus},
};

use super::http_service::HttpService;
use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent},
    extensions::{filters::common::mutation_rules::Rules, grpc_service::Target},
    matching::{MetadataMatcher, StringMatcher},
    runtime::{RuntimeFeatureFlag, RuntimeFractionalPercent},
    stats::Stats,
};

/// Envoy's default for a gRPC answer.
const TIMEOUT: Duration = Duration::from_millis(200);

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.ext_authz.` statistics
    pub struct ExtAuthzStats {
        counter ok, "Requests that were allowed";
        counter denied, "Requests that were denied";
        counter error, "Questions without an answer";
        counter disabled, "Requests that were not asked about";
        counter failure_mode_allowed, "Requests that passed because there was no answer";
        counter invalid, "Answers that no header can hold";
        counter ignored_dynamic_metadata, "Answers whose metadata was left out";
        counter filter_state_name_collision, "Filter state of that name was there";
        counter omitted_response_headers, "Headers of answers that were left out";
        counter request_header_limits_reached, "Requests that had no room for headers of an answer";
    }
}

/// The filter's configuration.
pub(super) struct Config {
    pub service: Option<Service>,
    pub failure_mode_allow: bool,
    pub failure_mode_allow_header: bool,
    pub body: Option<BufferSettings>,
    pub clear_route_cache: bool,
    pub status_on_error: StatusCode,
    pub validate_mutations: bool,
    /// `decoder_header_mutation_rules`: none: the service may change all.
    pub rules: Option<Rules>,
    pub metadata_namespaces: Vec<String>,
    pub route_namespaces: Vec<String>,
    pub route_typed_namespaces: Vec<String>,
    pub enabled: RuntimeFractionalPercent,
    pub enabled_metadata: Option<MetadataMatcher>,
    pub deny_at_disable: RuntimeFeatureFlag,
    pub include_certificate: bool,
    pub include_tls_session: bool,
    pub allowed: Option<Vec<StringMatcher>>,
    pub disallowed: Vec<StringMatcher>,
    pub charge_cluster: bool,
    pub raw_headers: bool,
    pub take_metadata: bool,
    pub most_denied_body: usize,
    /// `emit_client_span: false`; as in Envoy, it holds for questions over HTTP.
    pub silent: bool,
    pub stats: Stats<ExtAuthzStats>,
    /// Names below `cluster.<route's cluster>.`
    pub cluster_prefix: String,
}

/// Whom to ask.
pub(super) enum Service {
    Grpc(Target),
    Http(HttpService),
}

/// `with_request_body`
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferSettings {
    pub most: u64,
    pub partial: bool,
    pub as_bytes: bool,
}

/// What a route says.
pub(super) enum PerRoute {
    Disabled,
    Settings(Box<RouteSettings>),
}

/// `CheckSettings`
pub(super) struct RouteSettings {
    pub context: HashMap<String, String>,
    pub no_body: bool,
    pub body: Option<BufferSettings>,
    pub service: Option<Service>,
}

impl Config {
    /// Builds the filter's configuration.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                services, failure_mode_allow, failure_mode_allow_header_add, with_request_body, clear_route_cache,
                status_on_error, validate_mutations, metadata_context_namespaces, route_metadata_context_namespaces,
                route_typed_metadata_context_namespaces, filter_enabled, filter_enabled_metadata, deny_at_disable,
                include_peer_certificate, stat_prefix, allowed_headers, disallowed_headers, include_tls_session,
                charge_cluster_response_stats, encode_raw_headers, enable_dynamic_metadata_ingestion,
                max_denied_response_body_bytes, decoder_header_mutation_rules, emit_client_span,
            }
            ignored {
                transport_api_version: "there is only V3",
                typed_metadata_context_namespaces: "filters leave no typed metadata here",
                bootstrap_metadata_labels_key: "no labels are sent",
                emit_filter_state_stats: "no statistics in filter state",
                filter_metadata: "there is no filter state to put it in",
                enforce_response_header_limits: "limits of responses are the codec's",
            }
            rejected {
                shadow_mode: "shadow mode",
            }
        });
        let scope = format!("{}ext_authz", cx.http_prefix);
        let scope = match stat_prefix.as_str() {
            "" => scope,
            prefix => format!("{scope}.{prefix}"),
        };
        Ok(Self {
            silent: emit_client_span.is_some_and(|v| !v.value),
            service: match services {
                None => None,
                Some(Services::GrpcService(proto)) => Some(grpc_service(proto, cx)?),
                Some(Services::HttpService(proto)) => {
                    let service = cx.field("http_service", |cx| HttpService::build(proto, cx))?;
                    Some(Service::Http(service))
                }
            },
            failure_mode_allow,
            failure_mode_allow_header: failure_mode_allow_header_add,
            body: cx.opt("with_request_body", with_request_body, buffer)?,
            clear_route_cache,
            status_on_error: cx
                .opt("status_on_error", status_on_error, status)?
                .unwrap_or(StatusCode::FORBIDDEN),
            validate_mutations,
            rules: cx.opt(
                "decoder_header_mutation_rules",
                decoder_header_mutation_rules,
                Rules::build,
            )?,
            metadata_namespaces: metadata_context_namespaces,
            route_namespaces: route_metadata_context_namespaces,
            route_typed_namespaces: route_typed_metadata_context_namespaces,
            enabled: cx.field("filter_enabled", |cx| {
                RuntimeFractionalPercent::build_or(filter_enabled, FractionalPercent::FULL, cx)
            })?,
            enabled_metadata: cx.opt(
                "filter_enabled_metadata",
                filter_enabled_metadata,
                MetadataMatcher::build,
            )?,
            deny_at_disable: cx.field("deny_at_disable", |cx| {
                RuntimeFeatureFlag::build_or(deny_at_disable, false, cx)
            })?,
            include_certificate: include_peer_certificate,
            include_tls_session,
            allowed: cx.opt("allowed_headers", allowed_headers, matchers)?,
            disallowed: cx
                .opt("disallowed_headers", disallowed_headers, matchers)?
                .unwrap_or_default(),
            charge_cluster: charge_cluster_response_stats.is_none_or(|v| v.value),
            raw_headers: encode_raw_headers,
            take_metadata: enable_dynamic_metadata_ingestion.is_none_or(|v| v.value),
            most_denied_body: match max_denied_response_body_bytes {
                0 => usize::MAX,
                most => most as usize,
            },
            stats: cx.server.stats.scope(&scope).block(),
            cluster_prefix: match stat_prefix.as_str() {
                "" => "ext_authz.".to_owned(),
                prefix => format!("ext_authz.{prefix}."),
            },
        })
    }

    /// Whether a header is told to the service.
    pub fn tells(&self, name: &str) -> bool {
        let of = |matchers: &[StringMatcher]| matchers.iter().any(|m| m.matches(name.as_bytes()));
        self.allowed.as_ref().is_none_or(|allowed| of(allowed)) && !of(&self.disallowed)
    }
}

fn grpc_service(proto: GrpcService, cx: &mut BuildCx<'_>) -> ConfigResult<Service> {
    let unset = proto.timeout.is_none();
    let mut target = cx.field("grpc_service", |cx| Target::build(proto, cx))?;
    if unset {
        target.timeout = Some(TIMEOUT);
    }
    Ok(Service::Grpc(target))
}

/// `ListStringMatcher`
pub(super) fn matchers(proto: ListStringMatcher, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<StringMatcher>> {
    coverage!(cx, proto => ListStringMatcher { supported { patterns } });
    cx.each("patterns", patterns, StringMatcher::build)
}

fn status(proto: HttpStatus, cx: &mut BuildCx<'_>) -> ConfigResult<StatusCode> {
    coverage!(cx, proto => HttpStatus { supported { code } });
    let code = u16::try_from(code).ok().and_then(|c| StatusCode::from_u16(c).ok());
    Ok(code.unwrap_or(StatusCode::FORBIDDEN))
}

fn buffer(proto: BufferProto, cx: &mut BuildCx<'_>) -> ConfigResult<BufferSettings> {
    coverage!(cx, proto => BufferProto { supported { max_request_bytes, allow_partial_message, pack_as_bytes } });
    if max_request_bytes == 0 {
        return Err(cx.error_at("max_request_bytes", "value must be greater than 0"));
    }
    Ok(BufferSettings {
        most: max_request_bytes.into(),
        partial: allow_partial_message,
        as_bytes: pack_as_bytes,
    })
}

impl PerRoute {
    /// Builds a route's configuration.
    pub fn build(proto: ExtAuthzPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ExtAuthzPerRoute { supported { r#override } });
        let settings = match r#override {
            Some(Override::Disabled(true)) => return Ok(Self::Disabled),
            Some(Override::Disabled(false)) => {
                return Err(cx.error_at("disabled", "value must be true"));
            }
            Some(Override::CheckSettings(settings)) => settings,
            None => return Err(cx.error_at("override", "value is required")),
        };
        cx.field("check_settings", |cx| {
            coverage!(cx, settings => CheckSettings {
                supported {
                    context_extensions, disable_request_body_buffering, with_request_body, service_override,
                }
                ignored { emit_client_span: "the filter's holds for all routes" }
            });
            if disable_request_body_buffering && with_request_body.is_some() {
                return Err(cx.error(
                    "Invalid configuration for check_settings. Only one of disable_request_body_buffering or \
                     with_request_body can be set.",
                ));
            }
            Ok(Self::Settings(Box::new(RouteSettings {
                context: context_extensions.into_iter().collect(),
                no_body: disable_request_body_buffering,
                body: cx.opt("with_request_body", with_request_body, buffer)?,
                service: match service_override {
                    None => None,
                    Some(ServiceOverride::GrpcService(proto)) => Some(grpc_service(proto, cx)?),
                    Some(ServiceOverride::HttpService(proto)) => {
                        let service = cx.field("http_service", |cx| HttpService::build(proto, cx))?;
                        Some(Service::Http(service))
                    }
                },
            })))
        })
    }
}

/// The shared configuration of all streams.
pub(super) type Shared = Arc<Config>;
