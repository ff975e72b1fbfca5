//! The values of the labels: who asked whom, for what, how securely, and with what result.
//!
//! The order is that of [`Shape::labels`]; what is not known is `unknown`, and of this proxy's own workload what its
//! node metadata says, even if that is nothing.

use std::sync::Arc;

use xds_protos::{
    envoy::config::core::v3::{Node, TrafficDirection},
    google::protobuf::{Struct, Value, value::Kind},
};

use super::series::Key;
use crate::{
    extensions::common::workload::{Peer, WorkloadMetadata},
    http::{
        ConnectionInfo, RequestHead, StreamInfo,
        stream_info::{CertInfo, FilterState, Metadata, TlsInfo},
    },
};

const UNKNOWN: &str = "unknown";

/// Clusters that are told by their names, whatever was asked for.
const UNNAMED_SERVICES: [&str; 5] = [
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

/// Where the proxy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// A sidecar beside the client, or a gateway.
    Source,
    /// A sidecar beside the server.
    Destination,
    /// In front of many servers.
    Waypoint,
}

impl Reporter {
    /// What a sidecar is on listeners of this direction.
    pub(super) fn of(direction: TrafficDirection) -> Self {
        match direction {
            TrafficDirection::Inbound => Self::Destination,
            _ => Self::Source,
        }
    }

    /// The peer that has to be found out about.
    fn peer(self) -> Peer {
        match self {
            Self::Source => Peer::Upstream,
            Self::Destination | Self::Waypoint => Peer::Downstream,
        }
    }
}

/// The workload of this proxy.
#[derive(Debug, Default)]
pub(super) struct Own {
    workload: String,
    namespace: String,
    canonical_name: String,
    canonical_revision: String,
    app: String,
    version: String,
    cluster: String,
    /// `ISTIO_VERSION`
    pub(super) istio_version: String,
}

impl Own {
    pub(super) fn new(node: &Node) -> Self {
        let none = Struct::default();
        let metadata = node.metadata.as_ref().unwrap_or(&none);
        let labels = structure(metadata, "LABELS").unwrap_or(&none);
        let (field, label) = (
            |name| text(metadata, name).to_owned(),
            |name| text(labels, name).to_owned(),
        );
        Self {
            workload: field("WORKLOAD_NAME"),
            namespace: field("NAMESPACE"),
            canonical_name: label("service.istio.io/canonical-name"),
            canonical_revision: label("service.istio.io/canonical-revision"),
            app: label("app"),
            version: label("version"),
            cluster: field("CLUSTER_ID"),
            istio_version: field("ISTIO_VERSION"),
        }
    }
}

/// What labels are made of.
pub(super) struct Sources<'a> {
    pub(super) own: &'a Own,
    pub(super) reporter: Reporter,
    pub(super) info: &'a StreamInfo,
    pub(super) request: Option<&'a RequestHead>,
    /// `Cluster.metadata` of the upstream.
    pub(super) cluster: Option<&'a Metadata>,
    pub(super) host_fallback: bool,
}

/// Whether what is to be found out about the other end is there, or never will be.
pub(super) fn is_settled(reporter: Reporter, info: &StreamInfo) -> bool {
    let settled = |state: &FilterState| reporter.peer().is_settled(state);
    settled(&info.filter_state) || settled(&info.connection.filter_state.borrow()) || {
        let found = info.upstream.found.as_ref();
        reporter == Reporter::Source && found.is_some_and(|found| settled(&found.filter_state()))
    }
}

impl Sources<'_> {
    /// Writes the labels of both ends, and says how the connection is secured.
    pub(super) fn write(&self, key: &mut Key) -> &'static str {
        match self.reporter {
            Reporter::Source => self.write_source(key),
            Reporter::Destination | Reporter::Waypoint => self.write_destination(key),
        }
    }

    fn write_source(&self, key: &mut Key) -> &'static str {
        let (own, service) = (self.own, self.service());
        let found = self.peer(Peer::Upstream);
        let tls = self.info.upstream.tls.as_deref();
        let principal = match (san(tls, |t| &t.peer), &found) {
            ("", Some(found)) => &found.identity,
            (san, _) => san,
        };
        let peer = found
            .clone()
            .or_else(|| self.endpoint().map(Arc::new))
            .unwrap_or_default();
        let namespace = namespace_of(principal, &peer);
        key.value("source");
        key.value(&own.workload);
        key.value(&own.canonical_name);
        key.value(&own.canonical_revision);
        key.value(&own.namespace);
        key.value_or(san(tls, |t| &t.local), UNKNOWN);
        key.value(&own.app);
        key.value(&own.version);
        key.value(&own.cluster);
        key.value_or(&peer.workload_name, UNKNOWN);
        key.value_or(namespace, UNKNOWN);
        key.value_or(principal, UNKNOWN);
        key.value_or(&peer.app_name, UNKNOWN);
        key.value_or(&peer.app_version, UNKNOWN);
        key.value_or(service.host, UNKNOWN);
        key.value_or(&peer.canonical_name, UNKNOWN);
        key.value_or(&peer.canonical_revision, "latest");
        key.value_or(service.name, UNKNOWN);
        key.value_or(
            if service.namespace.is_empty() {
                namespace
            } else {
                service.namespace
            },
            UNKNOWN,
        );
        key.value_or(&peer.cluster_name, UNKNOWN);
        UNKNOWN
    }

    fn write_destination(&self, key: &mut Key) -> &'static str {
        let (own, service) = (self.own, self.service());
        let peer = self.peer(Peer::Downstream).unwrap_or_default();
        let (theirs, ours) = self.principals();
        key.value(match self.reporter {
            Reporter::Waypoint => "waypoint",
            _ => "destination",
        });
        key.value_or(&peer.workload_name, UNKNOWN);
        key.value_or(&peer.canonical_name, UNKNOWN);
        key.value_or(&peer.canonical_revision, "latest");
        key.value_or(namespace_of(&theirs, &peer), UNKNOWN);
        key.value_or(&theirs, UNKNOWN);
        key.value_or(&peer.app_name, UNKNOWN);
        key.value_or(&peer.app_version, UNKNOWN);
        key.value_or(&peer.cluster_name, UNKNOWN);
        if self.reporter == Reporter::Waypoint {
            let endpoint = self.peer(Peer::Upstream).unwrap_or_default();
            key.value_or(&endpoint.workload_name, UNKNOWN);
            key.value_or(&endpoint.namespace_name, UNKNOWN);
            key.value_or(&endpoint.identity, UNKNOWN);
            key.value_or(&endpoint.app_name, UNKNOWN);
            key.value_or(&endpoint.app_version, UNKNOWN);
            key.value_or(service.host, UNKNOWN);
            key.value_or(&endpoint.canonical_name, UNKNOWN);
            key.value_or(&endpoint.canonical_revision, UNKNOWN);
            key.value_or(service.name, UNKNOWN);
            key.value_or(service.namespace, UNKNOWN);
            key.value_or(&endpoint.cluster_name, UNKNOWN);
        } else {
            key.value(&own.workload);
            key.value(&own.namespace);
            key.value_or(&ours, UNKNOWN);
            key.value(&own.app);
            key.value(&own.version);
            key.value_or(service.host, &own.canonical_name);
            key.value(&own.canonical_name);
            key.value(&own.canonical_revision);
            key.value_or(service.name, &own.canonical_name);
            key.value(&own.namespace);
            key.value(&own.cluster);
        }
        match !theirs.is_empty() && !ours.is_empty() {
            true => "mutual_tls",
            false => "none",
        }
    }

    /// What was found out about a peer.
    fn peer(&self, peer: Peer) -> Option<Arc<WorkloadMetadata>> {
        let info = self.info;
        let of_stream = peer.get(&info.filter_state).cloned();
        let of_connection = || peer.get(&info.connection.filter_state.borrow()).cloned();
        // Network filters of a cluster leave it with the upstream connection.
        let of_upstream = || peer.get(&info.upstream.found.as_ref()?.filter_state()).cloned();
        of_stream.or_else(of_connection).or_else(|| match peer {
            Peer::Upstream => of_upstream(),
            Peer::Downstream => None,
        })
    }

    /// What the endpoint's metadata say of its workload.
    fn endpoint(&self) -> Option<WorkloadMetadata> {
        let host = self.info.upstream.host.as_ref()?;
        let attributes = host.attributes();
        let istio = attributes.metadata.get("istio")?;
        match &istio.fields.get("workload")?.kind {
            Some(Kind::StringValue(text)) => WorkloadMetadata::of_endpoint(text),
            _ => None,
        }
    }

    /// Principals of the client and of the server, as those who have terminated its mTLS tell, or the connection.
    fn principals(&self) -> (String, String) {
        let told = (
            self.principal("io.istio.peer_principal"),
            self.principal("io.istio.local_principal"),
        );
        if !told.0.is_empty() || !told.1.is_empty() {
            return told;
        }
        let tls = self.info.connection.tls.as_deref();
        (san(tls, |t| &t.peer).to_owned(), san(tls, |t| &t.local).to_owned())
    }

    fn principal(&self, key: &str) -> String {
        let read = |state: &FilterState| Some(state.get(key)?.as_text()?.into_owned());
        let connection: &ConnectionInfo = &self.info.connection;
        let told = read(&self.info.filter_state).or_else(|| read(&connection.filter_state.borrow()));
        told.unwrap_or_default()
    }

    fn service(&self) -> Service<'_> {
        let mut service = Service::default();
        if self.host_fallback
            && let Some(host) = self.request.and_then(|r| r.authority.as_ref()?.to_str().ok())
        {
            (service.host, service.name) = (host, host);
        }
        match self.info.route_name.as_deref() {
            Some("block_all") => service.name = "BlackHoleCluster",
            Some("allow_any") => service.name = "PassthroughCluster",
            _ => self.service_of_cluster(&mut service),
        }
        service
    }

    fn service_of_cluster<'s>(&'s self, service: &mut Service<'s>) {
        let name = self.info.upstream.cluster.as_deref().unwrap_or_default();
        if UNNAMED_SERVICES.contains(&name) {
            service.name = name;
            return;
        }
        let Some(told) = self.cluster.and_then(first_service) else {
            return;
        };
        if told.fields.contains_key("host") {
            service.host = text(told, "host");
        }
        service.namespace = text(told, "namespace");
        service.name = match told.fields.contains_key("name") {
            true => text(told, "name"),
            false => service.host.split('.').next().unwrap_or_default(),
        };
    }
}

/// The service that was asked for.
#[derive(Default)]
struct Service<'a> {
    host: &'a str,
    name: &'a str,
    namespace: &'a str,
}

/// The first of a cluster's `istio.services`.
fn first_service(metadata: &Metadata) -> Option<&Struct> {
    match &metadata.get("istio")?.fields.get("services")?.kind {
        Some(Kind::ListValue(services)) => match &services.values.first()?.kind {
            Some(Kind::StructValue(service)) => Some(service),
            _ => None,
        },
        _ => None,
    }
}

/// The namespace of a SPIFFE id, or what is known otherwise.
fn namespace_of<'a>(principal: &'a str, peer: &'a WorkloadMetadata) -> &'a str {
    let of_id = principal
        .split_once("/ns/")
        .and_then(|(_, rest)| rest.split('/').next());
    of_id.filter(|n| !n.is_empty()).unwrap_or(&peer.namespace_name)
}

/// The first URI of a certificate.
fn san(tls: Option<&TlsInfo>, of: impl Fn(&TlsInfo) -> &CertInfo) -> &str {
    tls.and_then(|tls| of(tls).uri_sans.first()).map_or("", String::as_str)
}

fn text<'a>(fields: &'a Struct, name: &str) -> &'a str {
    match fields.fields.get(name) {
        Some(Value {
            kind: Some(Kind::StringValue(text)),
        }) => text,
        _ => "",
    }
}

fn structure<'a>(fields: &'a Struct, name: &str) -> Option<&'a Struct> {
    match &fields.fields.get(name)?.kind {
        Some(Kind::StructValue(inner)) => Some(inner),
        _ => None,
    }
}
