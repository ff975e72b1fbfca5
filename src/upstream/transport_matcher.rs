//! `transport_socket_matcher`: a matcher tree that names one of `transport_socket_matches`.

use xds_protos::{
    envoy::extensions::matching::common_inputs::transport_socket::v3::TransportSocketNameAction, google::protobuf::Any,
    xds::r#type::matcher::v3::Matcher as Proto,
};

use super::HostAttributes;
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    http::ConnectionInfo,
    matching::tree::{Endpoint, MatchCx, MatchTarget, Matcher},
};

/// The tree, whose actions are places in the list of sockets.
#[derive(Debug)]
pub(super) struct SocketMatcher(Matcher<usize>);

impl SocketMatcher {
    /// Builds the tree over sockets of these names.
    pub(super) fn build(proto: Proto, names: &[String], cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        for (at, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(cx.error("Transport socket name is required when using transport_socket_matcher"));
            }
            if names.iter().take(at).any(|other| other == name) {
                return Err(cx.error(format!(
                    "Duplicate transport socket name '{name}' found in transport_socket_matches"
                )));
            }
        }
        Matcher::build(proto, &mut Target(names), cx).map(Self)
    }

    /// The socket for an endpoint; none when nothing matches.
    pub(super) fn find(&self, of: &HostAttributes) -> Option<usize> {
        thread_local! {
            /// Sockets are chosen by endpoints: whoever is connected for does not matter.
            static NOBODY: ConnectionInfo = ConnectionInfo::of_nobody();
        }
        NOBODY.with(|nobody| {
            let cx = MatchCx {
                endpoint: Some(Endpoint {
                    metadata: &of.metadata,
                    locality: &of.locality_metadata,
                }),
                ..MatchCx::connection(nobody)
            };
            self.0.find(&cx).copied()
        })
    }
}

struct Target<'a>(&'a [String]);

impl MatchTarget for Target<'_> {
    type Action = usize;

    fn allows(&self, input: &str) -> Result<(), String> {
        const INPUTS: &str = "envoy.extensions.matching.common_inputs.transport_socket.v3.";
        match input.strip_prefix(INPUTS) {
            Some("EndpointMetadataInput" | "LocalityMetadataInput") => Ok(()),
            _ => Err(format!("not supported: choosing a transport socket by {input}")),
        }
    }

    fn action(&mut self, _name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<usize> {
        if !config.type_name().ends_with(".TransportSocketNameAction") {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for type: '{}'",
                config.type_name()
            )));
        }
        let proto = unpack::<TransportSocketNameAction>(&config, cx)?;
        coverage!(cx, proto => TransportSocketNameAction { supported { name } });
        // As in Envoy, a name that nobody has stands for the default socket.
        Ok(self.0.iter().position(|n| *n == name).unwrap_or(usize::MAX))
    }
}
