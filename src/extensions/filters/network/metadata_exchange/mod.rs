//! Peers that tell one another of their workloads at the start of a connection
//! (`envoy.tcp.metadataexchange.config.MetadataExchange`), where ALPN has settled that both do.
//!
//! It stands on both sides: in filter chains of the server's proxy, and in clusters of the client's. Without the ALPN
//! protocol nothing is exchanged, and the peer may be looked up by its address instead.

mod exchange;
mod handover;
mod wire;

use std::{fmt, net::IpAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::tcp::metadataexchange::config::MetadataExchange as Proto;

use self::{
    exchange::{Exchange, Told},
    handover::Handover,
};
use crate::{
    config::{BuildCx, ConfigResult},
    extensions::common::workload::{
        FoundPeer, Peer, WorkloadMetadata, Workloads, address, node::AdditionalLabels, peer,
    },
    http::{ConnectionInfo, stream_info::Sharing},
    net::Stream,
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    server::Worker,
    stats::Stats,
    stats_block,
    upstream::{NewConnection, UpstreamNetworkFilter, UpstreamNetworkFilterFactory},
};

stats_block! {
    /// `metadata_exchange.*`
    struct ExchangeStats {
        counter alpn_protocol_not_found, "Connections of other protocols";
        counter alpn_protocol_found, "Connections whose peers exchange metadata";
        counter initial_header_not_found, "Peers that sent something else, or less than a header at first";
        counter header_not_found, "Peers whose metadata could not be read";
        counter metadata_added, "Times own metadata was sent, or a peer was found by its address";
    }
}

/// A filter's configuration, of either side.
struct Config {
    /// The ALPN protocol.
    protocol: String,
    labels: AdditionalLabels,
    /// Where peers are looked up that send nothing; none without `enable_discovery`.
    workloads: Option<Arc<Workloads>>,
    /// What is sent of this proxy's workload.
    own: Bytes,
    stats: Stats<ExchangeStats>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetadataExchange({})", self.protocol)
    }
}

impl Config {
    fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        coverage!(cx, proto => Proto { supported { protocol, enable_discovery, additional_labels } });
        if protocol.is_empty() {
            return Err(cx.error_at("protocol", "value length must be at least 1 characters"));
        }
        let labels: AdditionalLabels = additional_labels.into_iter().collect();
        // The locality is not told here, as in Istio's.
        let metadata = cx.server.node.metadata.clone().unwrap_or_default();
        let own = WorkloadMetadata::of_struct(&metadata, &labels);
        Ok(Arc::new(Self {
            protocol,
            own: wire::message(&own, &cx.server.node.id).into(),
            labels,
            workloads: enable_discovery.then(|| cx.server.workloads.clone()),
            stats: cx.server.stats.scope("metadata_exchange.").block(),
        }))
    }

    /// Whether a connection with this ALPN protocol begins with an exchange.
    fn exchanges(&self, alpn: Option<&str>) -> bool {
        let exchanges = alpn == Some(self.protocol.as_str());
        let stats = self.stats.local();
        match exchanges {
            true => stats.alpn_protocol_found.inc(),
            false => stats.alpn_protocol_not_found.inc(),
        }
        exchanges
    }

    /// The peer at an address, where it may be looked up.
    fn look_up(&self, address: Option<IpAddr>) -> Option<Arc<WorkloadMetadata>> {
        self.workloads.as_ref()?.find(address?)
    }

    /// The same of one that told nothing, which is counted.
    fn instead(&self, address: Option<IpAddr>) -> Option<Arc<WorkloadMetadata>> {
        let found = self.look_up(address);
        if found.is_some() {
            self.stats.local().metadata_added.inc();
        }
        found
    }
}

/// The server's side.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.metadata_exchange";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        Ok(NetworkFilter::Gate(Arc::new(Downstream(Config::build(proto, cx)?))))
    }
}

struct Downstream(Arc<Config>);

impl GateFilter for Downstream {
    fn on_connection(self: Arc<Self>, _: Rc<Worker>, mut connection: Connection) -> LocalBoxFuture<'static, Gated> {
        let (config, info) = (self.0.clone(), connection.info.clone());
        let alpn = info.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        let address = info.remote_address.ip();
        if config.exchanges(alpn) {
            let handover = Arc::new(Handover::default());
            let told = Told::Handover(handover.clone());
            let exchange = Exchange::new(connection.stream, config, Peer::Downstream, address, told);
            connection.stream = Stream::Other(Box::pin(exchange));
            connection
                .guards
                .push(Box::pin(async move { handover.take(&info).await }));
        } else {
            settle_without(&config, &info, address);
        }
        Box::pin(async { Gated::Pass(connection) })
    }
}

/// The peers of a connection without an exchange.
fn settle_without(config: &Arc<Config>, info: &ConnectionInfo, address: Option<IpAddr>) {
    let mut state = info.filter_state.borrow_mut();
    match config.instead(address) {
        Some(workload) => Peer::Downstream.set(&mut state, workload, Sharing::None),
        None => peer::set_not_found(&mut state),
    }
    if config.workloads.is_some() {
        let config = config.clone();
        info.upstream_watchers.add(move |info, upstream| {
            let address = upstream.host.as_ref().and_then(|host| address::of_host(host));
            if let Some(workload) = config.look_up(address) {
                Peer::Upstream.set(&mut info.filter_state.borrow_mut(), workload, Sharing::None);
            }
        });
    }
}

/// The client's side.
pub struct UpstreamFactory;

impl UpstreamNetworkFilterFactory for UpstreamFactory {
    const NAME: &'static str = "envoy.filters.network.upstream.metadata_exchange";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UpstreamNetworkFilter>> {
        Ok(Arc::new(Upstream(Config::build(proto, cx)?)))
    }
}

#[derive(Debug)]
struct Upstream(Arc<Config>);

impl UpstreamNetworkFilter for Upstream {
    fn connected(&self, stream: Stream, connection: NewConnection<'_>) -> Stream {
        let config = self.0.clone();
        let slot = connection.findings.slot();
        let address = address::of_host(connection.host).or_else(|| connection.local_address.ip());
        if config.exchanges(connection.tls.and_then(|tls| tls.alpn.as_deref())) {
            let exchange = Exchange::new(stream, config, Peer::Upstream, address, Told::Slot(slot));
            return Stream::Other(Box::pin(exchange));
        }
        slot.set(FoundPeer {
            peer: Peer::Upstream,
            workload: config.instead(address),
        });
        stream
    }
}

#[cfg(test)]
mod tests;
