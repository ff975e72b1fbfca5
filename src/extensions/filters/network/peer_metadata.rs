//! The upstream peer of a waypoint, as the peer tells of itself in the answer to an HBONE CONNECT.
//!
//! Two filters do it together. One stands in the listener that makes the tunnel (`connect_originate`): it sees the
//! answer. The other stands in the clusters whose endpoints are that listener: what it learns is filter state of the
//! upstream connection. Between them nothing goes over the connection itself; the listener's end has a slot for it.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::extensions::network_filters::peer_metadata::{Config as Proto, UpstreamConfig as UpstreamProto};

use super::tcp_proxy::{TUNNEL_RESPONSE_HEADERS, TunnelHeaders};
use crate::{
    config::{BuildCx, ConfigResult},
    extensions::common::workload::{FoundPeer, Peer, WorkloadMetadata, address::metadata_flag, node::AdditionalLabels},
    http::{
        ConnectionInfo,
        stream_info::{Metadata, Sharing, StringObject, UpstreamInfo},
    },
    net::{Address, Stream},
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    server::Worker,
    upstream::{NewConnection, UpstreamNetworkFilter, UpstreamNetworkFilterFactory},
};

/// The listeners that make tunnels.
const TUNNELS: [&str; 3] = ["connect_originate", "inner_connect_originate", "internal_outbound"];

/// The listener's filter.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.peer_metadata";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => Proto { supported { baggage_key } });
        let own = WorkloadMetadata::of_node(&cx.server.node, &AdditionalLabels::new());
        Ok(NetworkFilter::Gate(Arc::new(PeerMetadata {
            baggage_key: baggage_key.into(),
            baggage: own.baggage().into(),
        })))
    }
}

struct PeerMetadata {
    /// Filter state that gets this proxy's baggage, for the headers of the CONNECT; empty: none does.
    baggage_key: Arc<str>,
    baggage: Arc<str>,
}

impl GateFilter for PeerMetadata {
    fn on_connection(self: Arc<Self>, _: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, Gated> {
        let info = &connection.info;
        if !self.baggage_key.is_empty() {
            let own = Rc::new(StringObject(self.baggage.clone()));
            let mut state = info.filter_state.borrow_mut();
            state.set(self.baggage_key.clone(), own, Sharing::None, false);
        }
        if info.told.is_some() && !is_disabled(&info.metadata.borrow()) {
            info.upstream_watchers.add(tell);
        }
        Box::pin(async { Gated::Pass(connection) })
    }
}

/// The tunnel is there, and none of its bytes has gone on.
fn tell(connection: &ConnectionInfo, upstream: &UpstreamInfo) {
    let Some(slot) = &connection.told else { return };
    let state = connection.filter_state.borrow();
    let headers = state
        .get(TUNNEL_RESPONSE_HEADERS)
        .and_then(|object| object.as_any().downcast_ref::<TunnelHeaders>());
    let baggage = headers.and_then(|headers| headers.get("baggage"));
    let workload = baggage.map(|baggage| {
        let identity = upstream.tls.as_ref().map(|tls| tls.peer.uri_sans.join(","));
        Arc::new(WorkloadMetadata::of_baggage(baggage, &identity.unwrap_or_default()))
    });
    slot.set(FoundPeer {
        peer: Peer::Upstream,
        workload,
    });
}

/// The cluster's filter.
pub struct UpstreamFactory;

impl UpstreamNetworkFilterFactory for UpstreamFactory {
    const NAME: &'static str = "envoy.filters.network.upstream.peer_metadata";
    type Proto = UpstreamProto;

    fn build(&self, proto: UpstreamProto, _: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UpstreamNetworkFilter>> {
        let UpstreamProto {} = proto;
        Ok(Arc::new(UpstreamPeerMetadata))
    }
}

#[derive(Debug)]
struct UpstreamPeerMetadata;

impl UpstreamNetworkFilter for UpstreamPeerMetadata {
    fn connected(&self, stream: Stream, connection: NewConnection<'_>) -> Stream {
        let tunnels = match &connection.host.address {
            Address::Internal { listener, .. } => TUNNELS.contains(&&**listener),
            Address::Ip(_) | Address::Pipe(_) => false,
        };
        let disabled = is_disabled(&connection.host.attributes().metadata) || is_disabled(&connection.cluster.metadata);
        if tunnels && !disabled {
            connection.findings.add(connection.told.clone());
        }
        stream
    }
}

/// Whether metadata of the connection, the host or the cluster turn discovery off.
fn is_disabled(metadata: &Metadata) -> bool {
    metadata_flag(metadata, "istio.peer_metadata", "disable_baggage_discovery")
}
