//! `io.istio.http.peer_metadata.Config`, with what is told put together once.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use xds_protos::io::istio::http::peer_metadata::{
    Config as Proto,
    config::{
        DiscoveryMethod, IstioHeaders, PropagationMethod, UpstreamFilterState,
        discovery_method::MethodSpecifier as Discover, propagation_method::MethodSpecifier as Propagate,
    },
};

use super::cache::Headers;
use crate::{
    config::{BuildCx, ConfigResult},
    extensions::common::workload::{
        Peer, WorkloadMetadata,
        node::{AdditionalLabels, encode_sorted, string},
    },
    http::stream_info::Sharing,
};

/// A filter's configuration.
pub(super) struct Config {
    pub downstream: Direction,
    pub upstream: Direction,
    /// `shared_with_upstream`
    pub sharing: Sharing,
    /// The network that this proxy is in; empty where there is but one.
    pub network: String,
}

/// What is done about one of the peers.
pub(super) struct Direction {
    pub discovery: Vec<Discovery>,
    pub propagation: Vec<Propagation>,
}

/// A way to find out a peer.
pub(super) enum Discovery {
    /// By address.
    Workload,
    /// By `x-envoy-peer-metadata`.
    Headers(Headers),
    /// By `baggage`.
    Baggage,
    /// By what a network filter of the upstream connection has found out, under this name.
    UpstreamFilterState(String),
}

/// A way to tell a peer.
pub(super) enum Propagation {
    /// In `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id`.
    Headers {
        id: HeaderValue,
        metadata: HeaderValue,
        skip_external: bool,
    },
    /// In `baggage`.
    Baggage(HeaderValue),
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                downstream_discovery, upstream_discovery, downstream_propagation, upstream_propagation,
                shared_with_upstream, additional_labels,
            }
        });
        let labels: AdditionalLabels = additional_labels.into_iter().collect();
        let node = &cx.server.node;
        Ok(Self {
            network: node.metadata.as_ref().map_or("", |m| string(m, "NETWORK")).to_owned(),
            downstream: Direction {
                discovery: discovery(Peer::Downstream, downstream_discovery, &labels, cx),
                propagation: propagation(downstream_propagation, &labels, cx)?,
            },
            upstream: Direction {
                discovery: discovery(Peer::Upstream, upstream_discovery, &labels, cx),
                propagation: propagation(upstream_propagation, &labels, cx)?,
            },
            sharing: if shared_with_upstream {
                Sharing::Once
            } else {
                Sharing::None
            },
        })
    }

    pub fn direction(&self, of: Peer) -> &Direction {
        match of {
            Peer::Downstream => &self.downstream,
            Peer::Upstream => &self.upstream,
        }
    }
}

/// Methods that cannot find the peer out are left out, as in Envoy.
fn discovery(
    of: Peer,
    methods: Vec<DiscoveryMethod>,
    labels: &AdditionalLabels,
    cx: &mut BuildCx<'_>,
) -> Vec<Discovery> {
    let mut ways = Vec::with_capacity(methods.len());
    for DiscoveryMethod { method_specifier } in methods {
        ways.extend(match (method_specifier, of) {
            (Some(Discover::WorkloadDiscovery(_)), _) => Some(Discovery::Workload),
            (Some(Discover::IstioHeaders(_)), _) => Some(Discovery::Headers(Headers::new(labels.clone()))),
            (Some(Discover::Baggage(_)), Peer::Downstream) => Some(Discovery::Baggage),
            (Some(Discover::Baggage(_)), Peer::Upstream) => {
                cx.ignored("upstream_discovery", "baggage tells of downstream peers only");
                None
            }
            (Some(Discover::UpstreamFilterState(UpstreamFilterState { peer_metadata_key })), Peer::Upstream) => {
                Some(Discovery::UpstreamFilterState(peer_metadata_key))
            }
            (Some(Discover::UpstreamFilterState(_)), Peer::Downstream) => {
                cx.ignored(
                    "downstream_discovery",
                    "upstream filter state tells of upstream peers only",
                );
                None
            }
            (None, _) => None,
        });
    }
    ways
}

fn propagation(
    methods: Vec<PropagationMethod>,
    labels: &AdditionalLabels,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Vec<Propagation>> {
    let mut ways = Vec::with_capacity(methods.len());
    for PropagationMethod { method_specifier } in methods {
        let node = cx.server.node.clone();
        ways.extend(match method_specifier {
            Some(Propagate::IstioHeaders(IstioHeaders { skip_external_clusters })) => {
                let own = WorkloadMetadata::of_node(&node, labels).to_struct();
                Some(Propagation::Headers {
                    id: header(node.id.clone(), cx)?,
                    metadata: header(STANDARD.encode(encode_sorted(&own)), cx)?,
                    skip_external: skip_external_clusters,
                })
            }
            Some(Propagate::Baggage(_)) => {
                let own = WorkloadMetadata::of_node(&node, &AdditionalLabels::new());
                Some(Propagation::Baggage(header(own.baggage(), cx)?))
            }
            None => None,
        });
    }
    Ok(ways)
}

/// A node's name may be anything; a header may not.
fn header(text: String, cx: &BuildCx<'_>) -> ConfigResult<HeaderValue> {
    HeaderValue::try_from(text).map_err(|e| cx.error(format!("the node cannot be told in a header: {e}")))
}
