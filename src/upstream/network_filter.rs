//! Network filters of a cluster (`Cluster.filters`): they stand between the transport socket of each of its connections
//! and whoever uses the connection.
//!
//! A filter sees a connection once it is there. One that has to see bytes wraps the stream; what it finds out about the
//! connection it leaves in a slot, which who uses the connection reads as filter state.

use std::{fmt, ops::Deref, sync::Arc};

use xds_protos::{
    envoy::config::cluster::v3::Filter as Proto,
    prost::{Message, Name},
};

use super::{ClusterInfo, Host};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    http::stream_info::{FindingSlot, Findings, TlsInfo},
    net::{Address, Stream},
};

/// A connection as its filters see it.
pub struct NewConnection<'a> {
    /// It was made for this cluster.
    pub cluster: &'a ClusterInfo,
    /// It goes to this host.
    pub host: &'a Host,
    /// TLS facts; none for plain text.
    pub tls: Option<&'a TlsInfo>,
    /// This end.
    pub local_address: &'a Address,
    /// What the internal listener at the other end, if it is one, tells of it.
    pub told: &'a FindingSlot,
    /// Where filters leave what they find out.
    pub findings: &'a mut Findings,
}

/// A filter, built.
pub trait UpstreamNetworkFilter: Send + Sync + fmt::Debug {
    /// Looks at a connection, and wraps its bytes if it has to see them.
    fn connected(&self, stream: Stream, connection: NewConnection<'_>) -> Stream;
}

/// What an upstream network filter extension is, typed for its author.
pub trait UpstreamNetworkFilterFactory: Send + Sync + 'static {
    /// Envoy's extension name.
    const NAME: &'static str;
    /// The filter's configuration message.
    type Proto: Message + Name + Default;
    /// Builds the configuration that all connections of a cluster share.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UpstreamNetworkFilter>>;
}

/// The filters of a cluster, the first at the transport socket; mostly none.
#[derive(Debug, Clone, Default)]
pub struct UpstreamNetworkFilters(Box<[Arc<dyn UpstreamNetworkFilter>]>);

impl UpstreamNetworkFilters {
    pub(super) fn build(protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let filters = cx.each("filters", protos, |proto, cx| {
            coverage!(cx, proto => Proto {
                supported { name, typed_config }
                rejected { config_discovery: "discovery of upstream network filters" }
            });
            let any = plain(typed_config.unwrap_or_default(), cx)?;
            let server = cx.server.clone();
            match server.registry.find_upstream_network_filter(&any) {
                Some(factory) => cx.field("typed_config", |cx| factory.build(&any, cx)),
                None => Err(cx.error(format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                    any.type_name()
                ))),
            }
        })?;
        Ok(Self(filters.into()))
    }
}

impl Deref for UpstreamNetworkFilters {
    type Target = [Arc<dyn UpstreamNetworkFilter>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
