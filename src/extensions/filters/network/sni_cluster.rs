//! `envoy.filters.network.sni_cluster`: the cluster is called as the client's SNI says.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::extensions::filters::network::sni_cluster::v3::SniCluster as Proto;

use super::tcp_proxy::CLUSTER;
use crate::{
    config::{BuildCx, ConfigResult},
    http::stream_info::{Sharing, StringObject},
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    server::Worker,
};

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.sni_cluster";
    type Proto = Proto;

    fn build(&self, proto: Proto, _: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        let Proto {} = proto;
        Ok(NetworkFilter::Gate(Arc::new(SniCluster)))
    }
}

struct SniCluster;

impl GateFilter for SniCluster {
    fn on_connection(self: Arc<Self>, _: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, Gated> {
        if let Some(name) = connection.info.server_name.as_ref().filter(|n| !n.is_empty()) {
            let mut state = connection.info.filter_state.borrow_mut();
            state.set(
                CLUSTER.into(),
                Rc::new(StringObject(name.clone())),
                Sharing::None,
                false,
            );
        }
        Box::pin(async { Gated::Pass(connection) })
    }
}
