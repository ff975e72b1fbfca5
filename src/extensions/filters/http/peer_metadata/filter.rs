//! One request: the downstream peer is found out when it comes, the upstream peer when it is answered.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName};

use super::config::{Config, Discovery, Propagation};
use crate::{
    extensions::common::workload::{
        Peer, PeerObject, WorkloadMetadata,
        address::{metadata_flag, of_host_in_network},
    },
    http::{
        RequestHead, ResponseHead, StreamInfo,
        filter::{FilterCx, HttpFilter, Step},
    },
    server::Worker,
};

const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
const METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// Set by a gateway between networks: the address is that of the gateway then.
const ORIGIN_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");

/// One stream's.
pub(super) struct Filter {
    config: Arc<Config>,
    /// What the request had: only a peer that tells of itself is told.
    received: Received,
}

#[derive(Default)]
struct Received {
    id: bool,
    metadata: bool,
}

impl Filter {
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            received: Received::default(),
        }
    }

    fn discover(&mut self, of: Peer, cx: &mut FilterCx, headers: &mut HeaderMap) {
        let ways = &self.config.direction(of).discovery;
        let mut found = None;
        for way in ways {
            if of == Peer::Downstream && matches!(way, Discovery::Headers(_)) {
                self.received.id = headers.contains_key(METADATA_ID);
                self.received.metadata = headers.contains_key(METADATA);
            }
            found = self.find(way, of, cx, headers);
            if found.is_some() {
                break;
            }
        }
        if ways.iter().any(|way| matches!(way, Discovery::Headers(_))) {
            headers.remove(METADATA_ID);
            headers.remove(METADATA);
        }
        // Who found out before knows better: it saw the connection.
        if let Some(workload) = found
            && !known(of, &cx.info)
        {
            of.set(&mut cx.info.filter_state, workload, self.config.sharing);
        }
    }

    fn find(&self, way: &Discovery, of: Peer, cx: &FilterCx, headers: &HeaderMap) -> Option<Arc<WorkloadMetadata>> {
        match way {
            Discovery::Workload => {
                let address = match of {
                    Peer::Downstream => self.downstream_address(&cx.info, headers),
                    Peer::Upstream => of_host_in_network(cx.info.upstream.host.as_ref()?),
                };
                cx.worker.server.workloads.find(address?)
            }
            Discovery::Headers(read) => read.peer(headers.get(METADATA)?.as_bytes()),
            Discovery::Baggage => {
                let baggage = String::from_utf8_lossy(headers.get(BAGGAGE)?.as_bytes());
                Some(Arc::new(WorkloadMetadata::of_baggage(&baggage, "")))
            }
            Discovery::UpstreamFilterState(key) => {
                let found = cx.info.upstream.found.as_ref()?.filter_state();
                let object = found.get(key)?.as_any().downcast_ref::<PeerObject>()?;
                Some(object.workload.clone())
            }
        }
    }

    fn downstream_address(&self, info: &StreamInfo, headers: &HeaderMap) -> Option<IpAddr> {
        match headers.get(ORIGIN_NETWORK) {
            Some(network) if network.as_bytes() != self.config.network.as_bytes() => None,
            _ => info.remote_address().ip(),
        }
    }

    fn tell(&self, of: Peer, headers: &mut HeaderMap, external: impl Fn(bool) -> bool) {
        for way in &self.config.direction(of).propagation {
            match way {
                Propagation::Baggage(own) => drop(headers.insert(BAGGAGE, own.clone())),
                Propagation::Headers {
                    id,
                    metadata,
                    skip_external,
                } => {
                    if external(*skip_external) {
                        continue;
                    }
                    let always = of == Peer::Upstream;
                    if always || self.received.id {
                        headers.insert(METADATA_ID, id.clone());
                    }
                    if always || self.received.metadata {
                        headers.insert(METADATA, metadata.clone());
                    }
                }
            }
        }
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        self.discover(Peer::Downstream, cx, &mut head.headers);
        let (cluster, worker) = (cx.info.upstream.cluster.as_deref(), &cx.worker);
        self.tell(Peer::Upstream, &mut head.headers, |skip| {
            left_out(cluster, skip, worker)
        });
        Step::Continue
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        self.discover(Peer::Upstream, cx, &mut head.headers);
        let (cluster, worker) = (cx.info.upstream.cluster.as_deref(), &cx.worker);
        self.tell(Peer::Downstream, &mut head.headers, |skip| {
            left_out(cluster, skip, worker)
        });
        Step::Continue
    }
}

/// Whether the peer is in filter state already, of the stream or of its connection.
fn known(of: Peer, info: &StreamInfo) -> bool {
    let connection = info.connection.filter_state.borrow();
    info.filter_state.get(of.key()).is_some() || connection.get(of.key()).is_some()
}

/// Whether the upstream is not told: it is no part of the mesh, and configured not to be, or exchanges no metadata.
fn left_out(cluster: Option<&str>, skip_external: bool, worker: &Worker) -> bool {
    let Some(name) = cluster else { return false };
    if skip_external && name == "PassthroughCluster" {
        return true;
    }
    let Some(cluster) = worker.clusters.get(name) else {
        return false;
    };
    let says = |field| metadata_flag(&cluster.info.metadata, "istio", field);
    (skip_external && says("external")) || says("disable_mx")
}
