//! `HttpConnectionManager.Tracing` and `config.trace.v3.Tracing`.

use std::sync::Arc;

use xds_protos::{
    envoy::config::trace::v3::{
        Tracing as BootstrapTracing,
        tracing::{Http, http::ConfigType},
    },
    google::protobuf::Any,
};

use super::{CustomTag, Relation, Tracer, span::Direction};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    formatter::Format,
};

/// `tracing` of a connection manager, without what is sampled.
pub struct Config {
    /// `provider`, or the bootstrap's; none: nothing is reported or told to anybody.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// `spawn_upstream_span`
    pub spawn_upstream_span: bool,
    /// `verbose`: spans have events.
    pub verbose: bool,
    /// `max_path_tag_length`, in bytes; default 256.
    pub max_path_tag_length: usize,
    /// `custom_tags`
    pub custom_tags: Vec<CustomTag>,
    /// `operation`
    pub operation: Option<Format>,
    /// `upstream_operation`
    pub upstream_operation: Option<Format>,
    /// `no_context_propagation`: nobody is told.
    pub no_context_propagation: bool,
    /// Id of this node.
    pub node_id: String,
    /// Zone of this node.
    pub zone: String,
}

impl Config {
    /// How the span of a request relates to those below it.
    pub fn relation(&self, direction: Direction) -> Relation {
        Relation {
            direction,
            independent: self.spawn_upstream_span,
        }
    }
}

/// Tracers of Envoy's that are not built in: whoever asks for one is not refused, and nothing is reported.
const NOT_BUILT_IN: [&str; 6] = [
    "envoy.config.trace.v3.DatadogConfig",
    // Gone from Envoy; Istio still writes it for a mesh that names it.
    "envoy.config.trace.v3.LightstepConfig",
    "envoy.config.trace.v3.SkyWalkingConfig",
    "envoy.config.trace.v3.XRayConfig",
    "envoy.extensions.tracers.fluentd.v3.FluentdConfig",
    "envoy.extensions.tracers.dynamic_modules.v3.DynamicModuleTracer",
];

/// Builds a provider, or finds it: those of one configuration share a tracer. None: it is one that is not built in.
///
/// # Errors
/// A tracer that nobody knows, or a configuration that is none.
pub fn provider(proto: Http, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Arc<dyn Tracer>>> {
    let (name, any) = opened(proto, cx)?;
    let server = cx.server.clone();
    match server.registry.find_tracer(&any) {
        Some(factory) => {
            let build = || cx.field("typed_config", |cx| factory.build(&any, cx));
            server.tracers.find_or_build(&any, build).map(Some)
        }
        None => unknown(&name, &any, cx).map(|()| None),
    }
}

fn opened(proto: Http, cx: &mut BuildCx<'_>) -> ConfigResult<(String, Any)> {
    coverage!(cx, proto => Http { supported { name, config_type } });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        None => Default::default(),
    };
    Ok((name, plain(any, cx)?))
}

fn unknown(name: &str, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    if NOT_BUILT_IN.contains(&any.type_name()) {
        cx.ignored(
            "typed_config",
            "this tracer is not built in: nothing is reported or propagated",
        );
        return Ok(());
    }
    Err(cx.error(format!(
        "Didn't find a registered implementation for '{name}' with type URL: '{}'",
        any.type_name()
    )))
}

/// `tracing.http` of the bootstrap, for connection managers whose `tracing` has no provider.
///
/// # Errors
/// Those of [`provider`].
pub fn of_bootstrap(cx: &mut BuildCx<'_>) -> ConfigResult<Option<Arc<dyn Tracer>>> {
    match http_of_bootstrap(cx) {
        Some(http) => provider(http, cx),
        None => Ok(None),
    }
}

/// Checks that the bootstrap's tracer is one, as Envoy does before anybody asks for it.
///
/// # Errors
/// It is unknown.
pub fn check_bootstrap(cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    let Some(http) = http_of_bootstrap(cx) else {
        return Ok(());
    };
    cx.field("tracing.http", |cx| {
        let (name, any) = opened(http, cx)?;
        match cx.server.registry.find_tracer(&any) {
            Some(_) => Ok(()),
            None => unknown(&name, &any, cx),
        }
    })
}

fn http_of_bootstrap(cx: &BuildCx<'_>) -> Option<Http> {
    let BootstrapTracing { http } = cx.server.bootstrap.tracing.clone()?;
    http
}
