//! TCP proxy (`envoy.filters.network.tcp_proxy`): one upstream connection for each downstream one.

mod alarm;
mod choice;
mod client;
mod config;
mod connect;
mod drain_close;
mod filter;
mod session;
mod shed;
mod tlvs;
mod tunnel;

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::{ConnectionInfo, Flag},
    network_filter::{Connection, NetworkFilter, NetworkFilterFactory, TerminalFilter},
    server::Worker,
};

pub(in crate::extensions::filters::network) use tunnel::{
    Headers as TunnelHeaders, RESPONSE_HEADERS as TUNNEL_RESPONSE_HEADERS,
};

/// Filter state that names the cluster, before the configuration does.
pub(in crate::extensions::filters) const CLUSTER: &str = "envoy.tcp_proxy.cluster";

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.tcp_proxy";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        Ok(NetworkFilter::Terminal(Arc::new(TcpProxy(Arc::new(
            config::Config::build(proto, cx)?,
        )))))
    }
}

struct TcpProxy(Arc<config::Config>);

impl TerminalFilter for TcpProxy {
    fn serve(self: Arc<Self>, worker: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, ()> {
        Box::pin(filter::serve(self.0.clone(), worker, connection))
    }

    fn refused(&self, info: &Rc<ConnectionInfo>, flag: Option<Flag>) {
        filter::refused(&self.0, info, flag);
    }
}
