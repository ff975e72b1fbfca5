//! The messages of `overlay/istio`.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::ConfigSource;
use envoy_types::pb::google::protobuf::Duration;
use prost::{Enumeration, Message, Oneof};

/// `stats.MetricType`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum MetricType {
    /// It only grows.
    Counter = 0,
    /// It goes up and down.
    Gauge = 1,
    /// A distribution.
    Histogram = 2,
}

/// `stats.Reporter`: where the proxy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Reporter {
    /// A sidecar, client or server by the direction of the listener.
    Unspecified = 0,
    /// A gateway in front of servers: a waypoint.
    ServerGateway = 1,
}

/// `stats.MetricConfig`: changes to a standard metric.
#[derive(Clone, PartialEq, Message)]
pub struct MetricConfig {
    /// Tags to set, by name: CEL expressions.
    #[prost(map = "string, string", tag = "1")]
    pub dimensions: HashMap<String, String>,
    /// The metric; all of them if empty.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Tags to leave out.
    #[prost(string, repeated, tag = "3")]
    pub tags_to_remove: Vec<String>,
    /// A condition; Istio does not implement it.
    #[prost(string, tag = "4")]
    pub r#match: String,
    /// Do not report the metric.
    #[prost(bool, tag = "5")]
    pub drop: bool,
}

/// `stats.MetricDefinition`: a metric of the user's.
#[derive(Clone, PartialEq, Message)]
pub struct MetricDefinition {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value: a CEL expression.
    #[prost(string, tag = "2")]
    pub value: String,
    /// Its type.
    #[prost(enumeration = "MetricType", tag = "3")]
    pub r#type: i32,
}

/// `stats.PluginConfig`: the filter `istio.stats`.
#[derive(Clone, PartialEq, Message)]
pub struct PluginConfig {
    /// Do not take the Host header for the service when the control plane does not name it.
    #[prost(bool, tag = "6")]
    pub disable_host_header_fallback: bool,
    /// How often a TCP connection is reported; 5 s by default.
    #[prost(message, optional, tag = "7")]
    pub tcp_reporting_duration: Option<Duration>,
    /// Changes to the standard metrics.
    #[prost(message, repeated, tag = "8")]
    pub metrics: Vec<MetricConfig>,
    /// Metrics of the user's.
    #[prost(message, repeated, tag = "9")]
    pub definitions: Vec<MetricDefinition>,
    /// Where the proxy stands.
    #[prost(enumeration = "Reporter", tag = "10")]
    pub reporter: i32,
    /// Deprecated; how often metrics begin anew.
    #[prost(message, optional, tag = "11")]
    pub rotation_interval: Option<Duration>,
    /// Deprecated; how long the old ones stay.
    #[prost(message, optional, tag = "12")]
    pub graceful_deletion_interval: Option<Duration>,
}

/// `io.istio.http.peer_metadata.Config`: how the peers of a request are found out and told.
#[derive(Clone, PartialEq, Message)]
pub struct PeerMetadataConfig {
    /// Ways to find out the downstream peer; the first that succeeds wins.
    #[prost(message, repeated, tag = "1")]
    pub downstream_discovery: Vec<peer_metadata_config::DiscoveryMethod>,
    /// Ways to find out the upstream peer; the first that succeeds wins.
    #[prost(message, repeated, tag = "2")]
    pub upstream_discovery: Vec<peer_metadata_config::DiscoveryMethod>,
    /// Ways to tell the downstream peer, in response headers.
    #[prost(message, repeated, tag = "3")]
    pub downstream_propagation: Vec<peer_metadata_config::PropagationMethod>,
    /// Ways to tell the upstream peer, in request headers.
    #[prost(message, repeated, tag = "4")]
    pub upstream_propagation: Vec<peer_metadata_config::PropagationMethod>,
    /// Hand the downstream peer's metadata to internal upstream connections.
    #[prost(bool, tag = "5")]
    pub shared_with_upstream: bool,
    /// Labels of the workload to tell besides the standard ones.
    #[prost(string, repeated, tag = "6")]
    pub additional_labels: Vec<String>,
}

/// Within [`PeerMetadataConfig`].
pub mod peer_metadata_config {
    use super::*;

    /// The `baggage` header.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct Baggage {}

    /// The peer's address, looked up among the workloads of workload discovery.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct WorkloadDiscovery {}

    /// The headers `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id`.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct IstioHeaders {
        /// Do not send them out of the mesh.
        #[prost(bool, tag = "1")]
        pub skip_external_clusters: bool,
    }

    /// Filter state that a network filter of the upstream connection left.
    #[derive(Clone, PartialEq, Message)]
    pub struct UpstreamFilterState {
        /// Its key.
        #[prost(string, tag = "1")]
        pub peer_metadata_key: String,
    }

    /// A way to find out a peer.
    #[derive(Clone, PartialEq, Message)]
    pub struct DiscoveryMethod {
        /// The way.
        #[prost(oneof = "discovery_method::MethodSpecifier", tags = "1, 2, 3, 4")]
        pub method_specifier: Option<discovery_method::MethodSpecifier>,
    }

    /// Within [`DiscoveryMethod`].
    pub mod discovery_method {
        use super::*;

        /// The way.
        #[derive(Clone, PartialEq, Oneof)]
        pub enum MethodSpecifier {
            /// By baggage.
            #[prost(message, tag = "1")]
            Baggage(Baggage),
            /// By address.
            #[prost(message, tag = "2")]
            WorkloadDiscovery(WorkloadDiscovery),
            /// By Istio's headers.
            #[prost(message, tag = "3")]
            IstioHeaders(IstioHeaders),
            /// By filter state.
            #[prost(message, tag = "4")]
            UpstreamFilterState(UpstreamFilterState),
        }
    }

    /// A way to tell a peer.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct PropagationMethod {
        /// The way.
        #[prost(oneof = "propagation_method::MethodSpecifier", tags = "1, 2")]
        pub method_specifier: Option<propagation_method::MethodSpecifier>,
    }

    /// Within [`PropagationMethod`].
    pub mod propagation_method {
        use super::*;

        /// The way.
        #[derive(Clone, Copy, PartialEq, Eq, Oneof)]
        pub enum MethodSpecifier {
            /// By Istio's headers.
            #[prost(message, tag = "1")]
            IstioHeaders(IstioHeaders),
            /// By baggage.
            #[prost(message, tag = "2")]
            Baggage(Baggage),
        }
    }
}

/// `envoy.extensions.network_filters.peer_metadata.Config`: hands the peer metadata of an HBONE answer upstream.
#[derive(Clone, PartialEq, Message)]
pub struct NetworkPeerMetadataConfig {
    /// The filter state that holds this proxy's baggage.
    #[prost(string, tag = "1")]
    pub baggage_key: String,
}

/// `envoy.extensions.network_filters.peer_metadata.UpstreamConfig`: takes up what the other filter handed on.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct NetworkPeerMetadataUpstreamConfig {}

/// `envoy.tcp.metadataexchange.config.MetadataExchange`
#[derive(Clone, PartialEq, Message)]
pub struct MetadataExchange {
    /// The ALPN protocol under which peers exchange metadata: `istio-peer-exchange`.
    #[prost(string, tag = "1")]
    pub protocol: String,
    /// Look the peer up by its address when it sends no metadata.
    #[prost(bool, tag = "2")]
    pub enable_discovery: bool,
    /// Labels of the workload to tell besides the standard ones.
    #[prost(string, repeated, tag = "3")]
    pub additional_labels: Vec<String>,
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`: the filter `istio.alpn`.
#[derive(Clone, PartialEq, Message)]
pub struct AlpnFilterConfig {
    /// The ALPN protocols to offer upstream, by the protocol of the request there.
    #[prost(message, repeated, tag = "1")]
    pub alpn_override: Vec<alpn_filter_config::AlpnOverride>,
}

/// Within [`AlpnFilterConfig`].
pub mod alpn_filter_config {
    use super::*;

    /// The protocol of a request upstream.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
    #[repr(i32)]
    pub enum Protocol {
        /// HTTP/1.0
        Http10 = 0,
        /// HTTP/1.1
        Http11 = 1,
        /// HTTP/2
        Http2 = 2,
    }

    /// What to offer for one protocol.
    #[derive(Clone, PartialEq, Message)]
    pub struct AlpnOverride {
        /// The protocol.
        #[prost(enumeration = "Protocol", tag = "1")]
        pub upstream_protocol: i32,
        /// The ALPN protocols to offer.
        #[prost(string, repeated, tag = "2")]
        pub alpn_override: Vec<String>,
    }
}

/// `istio.workload.WorkloadType`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum WorkloadType {
    /// A Deployment.
    Deployment = 0,
    /// A CronJob.
    Cronjob = 1,
    /// A Pod of its own.
    Pod = 2,
    /// A Job.
    Job = 3,
}

/// `istio.workload.Workload`: the part of a workload that telemetry is labelled with.
#[derive(Clone, PartialEq, Message)]
pub struct Workload {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its addresses, 4 or 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub addresses: Vec<Vec<u8>>,
    /// The network of the addresses.
    #[prost(string, tag = "4")]
    pub network: String,
    /// The trust domain of its identity; the mesh's if empty.
    #[prost(string, tag = "6")]
    pub trust_domain: String,
    /// The service account of its identity; `default` if empty.
    #[prost(string, tag = "7")]
    pub service_account: String,
    /// The service it belongs to.
    #[prost(string, tag = "10")]
    pub canonical_name: String,
    /// The revision of the service.
    #[prost(string, tag = "11")]
    pub canonical_revision: String,
    /// What made it.
    #[prost(enumeration = "WorkloadType", tag = "12")]
    pub workload_type: i32,
    /// The name of what made it.
    #[prost(string, tag = "13")]
    pub workload_name: String,
    /// The cluster it runs in.
    #[prost(string, tag = "18")]
    pub cluster_id: String,
    /// Its name among all workloads.
    #[prost(string, tag = "20")]
    pub uid: String,
    /// Where it runs.
    #[prost(message, optional, tag = "24")]
    pub locality: Option<Locality>,
}

/// `istio.workload.Locality`: where a workload runs.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Locality {
    /// The region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// The zone within it.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// The part of the zone.
    #[prost(string, tag = "3")]
    pub subzone: String,
}

/// `istio.workload.BootstrapExtension`: turns on workload discovery.
#[derive(Clone, PartialEq, Message)]
pub struct BootstrapExtension {
    /// Where the workloads come from.
    #[prost(message, optional, tag = "1")]
    pub config_source: Option<ConfigSource>,
}

super::named!(
    "envoy.extensions.network_filters.peer_metadata":
    NetworkPeerMetadataConfig = "Config",
    NetworkPeerMetadataUpstreamConfig = "UpstreamConfig",
);
super::named!("envoy.tcp.metadataexchange.config": MetadataExchange = "MetadataExchange");
super::named!("io.istio.http.peer_metadata": PeerMetadataConfig = "Config");
super::named!("istio.envoy.config.filter.http.alpn.v2alpha1": AlpnFilterConfig = "FilterConfig");
super::named!(
    "istio.workload":
    Workload = "Workload",
    Locality = "Locality",
    BootstrapExtension = "BootstrapExtension",
);
super::named!(
    "stats":
    MetricConfig = "MetricConfig",
    MetricDefinition = "MetricDefinition",
    PluginConfig = "PluginConfig",
);
