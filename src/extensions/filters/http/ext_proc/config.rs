//! `ExternalProcessor` and `ExtProcPerRoute`.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use xds_protos::envoy::{
    extensions::filters::http::ext_proc::v3::{
        ExtProcOverrides, ExtProcPerRoute, ExternalProcessor as Proto, HeaderForwardingRules, MetadataOptions,
        ProcessingMode, ext_proc_per_route::Override, external_processor::RouteCacheAction,
        metadata_options::MetadataNamespaces,
    },
    r#type::{matcher::v3::ListStringMatcher, v3::HttpStatus},
};

use crate::{
    config::{BuildCx, ConfigResult, duration},
    extensions::{
        filters::common::mutation_rules::Rules,
        grpc_service::{self, Metadata, Target},
    },
    matching::{
        StringMatcher,
        cel::{CelExpression, CelOptions},
    },
    stats::Stats,
};

/// Envoy's default for an answer.
const TIMEOUT: Duration = Duration::from_millis(200);

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.ext_proc.` statistics
    pub(super) struct ExtProcStats {
        counter streams_started, "Streams that were opened";
        counter streams_closed, "Streams that ended well";
        counter streams_failed, "Streams that broke";
        counter stream_msgs_sent, "Messages to the service";
        counter stream_msgs_received, "Messages from the service";
        counter spurious_msgs_received, "Messages that were not due";
        counter message_timeouts, "Answers that did not come in time";
        counter failure_mode_allowed, "Failures that were passed over";
        counter rejected_header_mutations, "Changes of headers that are not allowed";
        counter override_message_timeout_received, "Times that the service asked for more time";
        counter override_message_timeout_ignored, "Times that it did not get it";
        counter clear_route_cache_disabled, "Routes that were kept though the service asked otherwise";
        counter clear_route_cache_ignored, "Times that a route could not be chosen again";
        counter clear_route_cache_upstream_ignored, "Never: this is no upstream filter";
        counter send_immediate_resp_upstream_ignored, "Never: this is no upstream filter";
        counter http_not_ok_resp_received, "Never: the service speaks gRPC";
        counter immediate_responses_sent, "Answers of the service's own";
        counter server_half_closed, "Streams that the service ended first";
    }
}

/// The filter's configuration.
pub(super) struct Config {
    pub settings: Arc<Settings>,
    pub message_timeout: Duration,
    /// `max_message_timeout`; zero: the service gets no more time.
    pub max_message_timeout: Duration,
    pub rules: Rules,
    pub forward: Forward,
    pub allow_mode_override: bool,
    pub allowed_modes: Vec<ProcessingMode>,
    pub disable_immediate_response: bool,
    pub observability: bool,
    pub route_cache: RouteCacheAction,
    pub status_on_error: StatusCode,
    pub keep_content_length: bool,
    pub stats: Stats<ExtProcStats>,
}

/// What a route may say otherwise.
#[derive(Clone)]
pub(super) struct Settings {
    pub service: Arc<Target>,
    pub mode: ProcessingMode,
    pub failure_mode_allow: bool,
    pub request_attributes: Arc<Attributes>,
    pub response_attributes: Arc<Attributes>,
    pub metadata: Arc<Namespaces>,
    /// `grpc_initial_metadata` of routes.
    pub initial_metadata: Metadata,
    /// `emit_client_span: false`
    pub silent: bool,
}

/// Expressions by their text.
pub(super) type Attributes = Vec<(String, CelExpression)>;

/// `metadata_options`: whose metadata goes to the service, and whose may come back.
#[derive(Default)]
pub(super) struct Namespaces {
    pub forwarded: Vec<String>,
    pub received: Vec<String>,
}

/// `forward_rules`: which headers the service sees.
#[derive(Default)]
pub(super) struct Forward {
    allowed: Option<Vec<StringMatcher>>,
    disallowed: Vec<StringMatcher>,
}

/// What a route says.
pub(super) enum PerRoute {
    Disabled,
    Overrides(Box<Overrides>),
}

pub(super) struct Overrides {
    mode: Option<ProcessingMode>,
    service: Option<Arc<Target>>,
    failure_mode_allow: Option<bool>,
    request_attributes: Option<Arc<Attributes>>,
    response_attributes: Option<Arc<Attributes>>,
    metadata: Option<Arc<Namespaces>>,
    initial_metadata: Metadata,
    silent: Option<bool>,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let action = proto.route_cache_action();
        coverage!(cx, proto => Proto {
            supported {
                grpc_service, failure_mode_allow, processing_mode, request_attributes, response_attributes,
                message_timeout, stat_prefix, mutation_rules, max_message_timeout, forward_rules, allow_mode_override,
                disable_immediate_response, metadata_options, observability_mode, disable_clear_route_cache,
                route_cache_action, allowed_override_modes, status_on_error, allow_content_length_header,
                emit_client_span,
            }
            ignored {
                filter_metadata: "it is only for loggers that know the filter",
                deferred_close_timeout: "a stream that is only observed ends with the request",
            }
            rejected {
                http_service: "the service speaks gRPC",
                send_body_without_waiting_for_header_response: "the body is sent when the headers are answered",
                processing_request_modifier: "there are no modifiers of requests to the service",
                on_processing_response: "there are no processors of the service's answers",
            }
        });
        let _ = route_cache_action;
        if disable_clear_route_cache && action != RouteCacheAction::Default {
            return Err(cx.error(
                "disable_clear_route_cache and route_cache_action can not be set to none-default at the same time.",
            ));
        }
        let Some(service) = grpc_service else {
            return Err(cx.error("One and only one of grpc_service or http_service must be configured"));
        };
        let scope = match stat_prefix.as_str() {
            "" => format!("{}ext_proc", cx.http_prefix),
            prefix => format!("{}ext_proc.{prefix}", cx.http_prefix),
        };
        let mode = processing_mode.unwrap_or_default();
        cx.field("processing_mode", |cx| check_mode(&mode, cx))?;
        Ok(Self {
            settings: Arc::new(Settings {
                service: cx
                    .field("grpc_service", |cx| Target::build(service, cx))
                    .map(Arc::new)?,
                mode,
                failure_mode_allow,
                request_attributes: attributes("request_attributes", request_attributes, cx)?.into(),
                response_attributes: attributes("response_attributes", response_attributes, cx)?.into(),
                metadata: cx
                    .opt("metadata_options", metadata_options, Namespaces::build)?
                    .unwrap_or_default()
                    .into(),
                initial_metadata: Vec::new(),
                silent: emit_client_span.is_some_and(|v| !v.value),
            }),
            message_timeout: message_timeout.as_ref().map_or(TIMEOUT, duration),
            max_message_timeout: max_message_timeout.as_ref().map_or(Duration::ZERO, duration),
            rules: cx
                .opt("mutation_rules", mutation_rules, Rules::build)?
                .unwrap_or_default(),
            forward: cx
                .opt("forward_rules", forward_rules, Forward::build)?
                .unwrap_or_default(),
            allow_mode_override,
            allowed_modes: allowed_override_modes,
            disable_immediate_response,
            observability: observability_mode,
            route_cache: match disable_clear_route_cache {
                true => RouteCacheAction::Retain,
                false => action,
            },
            status_on_error: cx
                .opt("status_on_error", status_on_error, |proto, cx| {
                    coverage!(cx, proto => HttpStatus { supported { code } });
                    Ok(status(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
                })?
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            keep_content_length: allow_content_length_header,
            stats: cx.server.stats.scope(&scope).block(),
        })
    }
}

/// A status as a number; from 200 on.
pub(super) fn status(code: i32) -> Option<StatusCode> {
    let code = u16::try_from(code).ok().filter(|c| *c >= 200)?;
    StatusCode::from_u16(code).ok()
}

fn check_mode(mode: &ProcessingMode, cx: &BuildCx<'_>) -> ConfigResult<()> {
    use xds_protos::envoy::extensions::filters::http::ext_proc::v3::processing_mode::{BodySendMode, HeaderSendMode};
    let sides = [
        (mode.request_body_mode(), mode.request_trailer_mode(), "request"),
        (mode.response_body_mode(), mode.response_trailer_mode(), "response"),
    ];
    for (body, trailers, side) in sides {
        if body == BodySendMode::Grpc {
            return Err(cx.error_at(
                &format!("{side}_body_mode"),
                "not supported: GRPC is not implemented in Envoy either",
            ));
        }
        if body == BodySendMode::FullDuplexStreamed && trailers != HeaderSendMode::Send {
            return Err(cx.error(format!(
                "If the ext_proc filter has the {side}_body_mode set to FULL_DUPLEX_STREAMED, then the \
                 {side}_trailer_mode has to be set to SEND"
            )));
        }
    }
    Ok(())
}

fn attributes(field: &str, names: Vec<String>, cx: &mut BuildCx<'_>) -> ConfigResult<Attributes> {
    cx.each(field, names, |name, cx| {
        let expression = CelExpression::parse(&name, CelOptions::default(), cx)?;
        Ok((name, expression))
    })
}

impl Namespaces {
    fn build(proto: MetadataOptions, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => MetadataOptions {
            supported { forwarding_namespaces, receiving_namespaces }
            rejected { cluster_metadata_forwarding_namespaces: "metadata of clusters is not sent" }
        });
        let names = |proto: Option<MetadataNamespaces>, cx: &mut BuildCx<'_>| {
            let proto = proto.unwrap_or_default();
            coverage!(cx, proto => MetadataNamespaces {
                supported { untyped }
                ignored { typed: "filters leave no typed metadata" }
            });
            Ok(untyped)
        };
        Ok(Self {
            forwarded: names(forwarding_namespaces, cx)?,
            received: names(receiving_namespaces, cx)?,
        })
    }
}

impl Forward {
    fn build(proto: HeaderForwardingRules, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HeaderForwardingRules { supported { allowed_headers, disallowed_headers } });
        let list = |proto: ListStringMatcher, cx: &mut BuildCx<'_>| {
            coverage!(cx, proto => ListStringMatcher { supported { patterns } });
            cx.each("patterns", patterns, StringMatcher::build)
        };
        Ok(Self {
            allowed: cx.opt("allowed_headers", allowed_headers, list)?,
            disallowed: cx
                .opt("disallowed_headers", disallowed_headers, list)?
                .unwrap_or_default(),
        })
    }

    /// Whether the service sees this header.
    pub fn sees(&self, name: &[u8]) -> bool {
        let any = |list: &[StringMatcher]| list.iter().any(|m| m.matches(name));
        self.allowed.as_deref().is_none_or(any) && !any(&self.disallowed)
    }
}

impl PerRoute {
    pub fn build(proto: ExtProcPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ExtProcPerRoute { supported { r#override } });
        match r#override {
            Some(Override::Overrides(proto)) => {
                let overrides = cx.field("overrides", |cx| Overrides::build(proto, cx))?;
                Ok(Self::Overrides(Box::new(overrides)))
            }
            Some(Override::Disabled(_)) => Ok(Self::Disabled),
            None => Err(cx.error_at("override", "is required")),
        }
    }
}

impl Overrides {
    fn build(proto: ExtProcOverrides, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ExtProcOverrides {
            supported {
                processing_mode, request_attributes, response_attributes, grpc_service, metadata_options,
                grpc_initial_metadata, failure_mode_allow, emit_client_span,
            }
            ignored {
                async_mode: "Envoy has not implemented it",
            }
            rejected { processing_request_modifier: "there are no modifiers of requests to the service" }
        });
        if let Some(mode) = &processing_mode {
            cx.field("processing_mode", |cx| check_mode(mode, cx))?;
        }
        let some = |attributes: Attributes| (!attributes.is_empty()).then(|| Arc::new(attributes));
        Ok(Self {
            mode: processing_mode,
            service: cx.opt("grpc_service", grpc_service, Target::build)?.map(Arc::new),
            failure_mode_allow: failure_mode_allow.map(|v| v.value),
            request_attributes: some(attributes("request_attributes", request_attributes, cx)?),
            response_attributes: some(attributes("response_attributes", response_attributes, cx)?),
            metadata: cx
                .opt("metadata_options", metadata_options, Namespaces::build)?
                .map(Arc::new),
            initial_metadata: cx.each("grpc_initial_metadata", grpc_initial_metadata, grpc_service::header)?,
            silent: emit_client_span.map(|v| !v.value),
        })
    }

    /// Puts what the route says over what was there.
    pub fn apply(&self, settings: &mut Settings) {
        if let Some(mode) = self.mode {
            settings.mode = mode;
        }
        if let Some(service) = &self.service {
            settings.service = service.clone();
        }
        if let Some(allow) = self.failure_mode_allow {
            settings.failure_mode_allow = allow;
        }
        if let Some(attributes) = &self.request_attributes {
            settings.request_attributes = attributes.clone();
        }
        if let Some(attributes) = &self.response_attributes {
            settings.response_attributes = attributes.clone();
        }
        if let Some(metadata) = &self.metadata {
            settings.metadata = metadata.clone();
        }
        settings.silent = self.silent.unwrap_or(settings.silent);
        for (key, value) in &self.initial_metadata {
            settings.initial_metadata.retain(|(k, _)| k != key);
            settings.initial_metadata.push((key.clone(), value.clone()));
        }
    }
}
