//! `HttpConnectionManager.Tracing` and `config.trace.v3.Tracing`.

use std::sync::Arc;

use xds_protos::envoy::config::trace::v3::{
    Tracing as BootstrapTracing,
    tracing::{Http, http::ConfigType},
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

/// Builds a provider, or finds it: those of one configuration share a tracer.
pub fn provider(proto: Http, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn Tracer>> {
    coverage!(cx, proto => Http { supported { name, config_type } });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        None => Default::default(),
    };
    let any = plain(any, cx)?;
    let server = cx.server.clone();
    server
        .tracers
        .find_or_build(&any, || match server.registry.find_tracer(&any) {
            Some(factory) => cx.field("typed_config", |cx| factory.build(&any, cx)),
            None => Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                any.type_name()
            ))),
        })
}

/// `tracing.http` of the bootstrap, for connection managers whose `tracing` has no provider.
pub fn of_bootstrap(cx: &mut BuildCx<'_>) -> ConfigResult<Option<Arc<dyn Tracer>>> {
    let bootstrap = cx.server.bootstrap.clone();
    let Some(BootstrapTracing { http: Some(http) }) = bootstrap.tracing.clone() else {
        return Ok(None);
    };
    provider(http, cx).map(Some)
}
