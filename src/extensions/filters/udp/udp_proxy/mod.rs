//! UDP proxy (`envoy.filters.udp_listener.udp_proxy`): datagrams of one client belong to a session, and a session to a
//! host of a cluster.
//!
//! A datagram finds its cluster ([`route`]), its cluster's sessions on this socket ([`cluster`]) and its session
//! ([`session`]), which has a socket of its own towards the host. What comes back there goes to the client.

mod cluster;
mod config;
mod filter;
mod route;
mod session;
pub mod session_filter;
pub mod session_filters;
mod upstream;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::udp::udp_proxy::v3::UdpProxyConfig as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    listener::{UdpFilterCx, UdpListenerFilter, UdpListenerFilterFactory, UdpReadFilter},
};

/// The extension.
pub struct Factory;

impl UdpListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.udp_listener.udp_proxy";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpListenerFilter>> {
        Ok(Arc::new(UdpProxy(Arc::new(config::Config::build(proto, cx)?))))
    }
}

struct UdpProxy(Arc<config::Config>);

impl UdpListenerFilter for UdpProxy {
    fn create(&self, cx: &UdpFilterCx) -> Box<dyn UdpReadFilter> {
        Box::new(filter::Filter::new(self.0.clone(), cx))
    }
}
