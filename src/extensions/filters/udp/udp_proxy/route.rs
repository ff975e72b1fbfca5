//! Which cluster a datagram goes to.

use std::sync::Arc;

use xds_protos::{
    envoy::extensions::filters::udp::udp_proxy::v3::Route as RouteProto, google::protobuf::Any,
    xds::r#type::matcher::v3::Matcher as MatcherProto,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    http::ConnectionInfo,
    matching::tree::{MatchCx, MatchTarget, Matcher},
};

/// `cluster` or `matcher`
pub(super) enum Route {
    Cluster(Arc<str>),
    Matcher(Box<Matcher<Arc<str>>>),
}

impl Route {
    pub(super) fn build(proto: MatcherProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Matcher::build(proto, &mut Routes, cx).map(|m| Self::Matcher(Box::new(m)))
    }

    /// The cluster of a datagram whose addresses are those of `info`.
    pub(super) fn cluster(&self, info: &ConnectionInfo) -> Option<&Arc<str>> {
        match self {
            Self::Cluster(name) => Some(name),
            Self::Matcher(matcher) => matcher.find(&MatchCx::connection(info)),
        }
    }
}

/// What the tree may ask: a datagram has addresses, and nothing else.
struct Routes;

impl MatchTarget for Routes {
    type Action = Arc<str>;

    fn allows(&self, input: &str) -> Result<(), String> {
        const INPUTS: &[&str] = &[
            "DestinationIPInput",
            "DestinationPortInput",
            "SourceIPInput",
            "SourcePortInput",
            "NetworkNamespaceInput",
        ];
        let name = input.strip_prefix("envoy.extensions.matching.common_inputs.network.v3.");
        let environment = input == "envoy.extensions.matching.common_inputs.environment_variable.v3.Config";
        match name.is_some_and(|name| INPUTS.contains(&name)) || environment {
            true => Ok(()),
            false => Err(format!(
                "Didn't find a registered implementation for type URL: '{input}'"
            )),
        }
    }

    fn action(&mut self, name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<str>> {
        if config.type_name() != "envoy.extensions.filters.udp.udp_proxy.v3.Route" {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                config.type_name()
            )));
        }
        let proto = unpack::<RouteProto>(&config, cx)?;
        coverage!(cx, proto => RouteProto { supported { cluster } });
        Ok(cluster.into())
    }
}
