//! Messages that Envoy 1.40 or Istio have and envoy-types lacks, in the packages where they belong.
//!
//! Their definitions are in `overlay/`, from which the build script makes the descriptors; the Rust types are written
//! here, and a test holds the two together.

mod istio_types;
mod xds_types;

use crate::TYPE_URL_PREFIX;

/// `envoy`, with Istio's messages in it.
pub mod envoy {
    pub use envoy_types::pb::envoy::*;

    /// `envoy.extensions`, with Istio's network filter for peer metadata.
    pub mod extensions {
        pub use envoy_types::pb::envoy::extensions::*;

        /// `envoy.extensions.network_filters`
        pub mod network_filters {
            /// `envoy.extensions.network_filters.peer_metadata`
            pub mod peer_metadata {
                pub use crate::overlay::istio_types::{
                    NetworkPeerMetadataConfig as Config, NetworkPeerMetadataUpstreamConfig as UpstreamConfig,
                };
            }
        }
    }

    /// `envoy.tcp`
    pub mod tcp {
        /// `envoy.tcp.metadataexchange`
        pub mod metadataexchange {
            /// `envoy.tcp.metadataexchange.config`
            pub mod config {
                pub use crate::overlay::istio_types::MetadataExchange;
            }
        }
    }
}

/// `io`, with `io.istio`.
pub mod io {
    pub use envoy_types::pb::io::*;

    /// `io.istio`
    pub mod istio {
        /// `io.istio.http`
        pub mod http {
            /// `io.istio.http.peer_metadata`
            pub mod peer_metadata {
                pub use crate::overlay::istio_types::{PeerMetadataConfig as Config, peer_metadata_config as config};
            }
        }
    }
}

/// `istio`: the ALPN filter's configuration and workload discovery.
pub mod istio {
    /// `istio.envoy`
    pub mod envoy {
        /// `istio.envoy.config`
        pub mod config {
            /// `istio.envoy.config.filter`
            pub mod filter {
                /// `istio.envoy.config.filter.http`
                pub mod http {
                    /// `istio.envoy.config.filter.http.alpn`
                    pub mod alpn {
                        /// `istio.envoy.config.filter.http.alpn.v2alpha1`
                        pub mod v2alpha1 {
                            pub use crate::overlay::istio_types::{
                                AlpnFilterConfig as FilterConfig, alpn_filter_config as filter_config,
                            };
                        }
                    }
                }
            }
        }
    }

    /// `istio.workload`
    pub mod workload {
        pub use crate::overlay::istio_types::{BootstrapExtension, Locality, Workload, WorkloadType};
    }
}

/// `stats`: the configuration of Istio's telemetry filter.
pub mod stats {
    pub use crate::overlay::istio_types::{MetricConfig, MetricDefinition, MetricType, PluginConfig, Reporter};
}

/// `udpa`, with `udpa.type.v1.TypedStruct`.
pub mod udpa {
    pub use envoy_types::pb::udpa::*;

    /// `udpa.type`
    pub mod r#type {
        /// `udpa.type.v1`
        pub mod v1 {
            pub use crate::overlay::xds_types::UdpaTypedStruct as TypedStruct;
        }
    }
}

/// `xds`, with resource names, typed structs, ORCA and the matchers that envoy-types lacks.
pub mod xds {
    pub use envoy_types::pb::xds::annotations;

    /// `xds.core`
    pub mod core {
        /// `xds.core.v3`
        pub mod v3 {
            pub use crate::overlay::xds_types::{Resource, ResourceName};
            pub use envoy_types::pb::xds::core::v3::*;
        }
    }

    /// `xds.data`
    pub mod data {
        /// `xds.data.orca`
        pub mod orca {
            /// `xds.data.orca.v3`
            pub mod v3 {
                pub use crate::overlay::xds_types::OrcaLoadReport;
            }
        }
    }

    /// `xds.service`
    pub mod service {
        /// `xds.service.orca`
        pub mod orca {
            /// `xds.service.orca.v3`
            pub mod v3 {
                pub use crate::overlay::xds_types::OrcaLoadReportRequest;
            }
        }
    }

    /// `xds.type`
    pub mod r#type {
        /// `xds.type.v3`
        pub mod v3 {
            pub use crate::overlay::xds_types::{DoubleRange, Int32Range, Int64Range, TypedStruct};
            pub use envoy_types::pb::xds::r#type::v3::*;
        }

        /// `xds.type.matcher`
        pub mod matcher {
            /// `xds.type.matcher.v3`
            pub mod v3 {
                pub use crate::overlay::xds_types::{
                    CelMatcher, DoubleRangeMatcher, HttpAttributesCelMatchInput, Int32RangeMatcher, Int64RangeMatcher,
                    IpMatcher, ServerNameMatcher, double_range_matcher, int32_range_matcher, int64_range_matcher,
                    ip_matcher, server_name_matcher,
                };
                pub use envoy_types::pb::xds::r#type::matcher::v3::*;
            }
        }
    }
}

/// Gives messages their protobuf names, as prost-build does.
macro_rules! named {
    ($package:literal: $($message:ty = $name:literal),+ $(,)?) => {
        $(impl prost::Name for $message {
            const NAME: &'static str = $name;
            const PACKAGE: &'static str = $package;

            fn type_url() -> String {
                format!("{}{}", crate::overlay::TYPE_URL_PREFIX, Self::full_name())
            }
        })+
    };
}
use named;

#[cfg(test)]
mod tests;
