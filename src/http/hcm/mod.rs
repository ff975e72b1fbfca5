//! The HTTP connection manager (`envoy.filters.network.http_connection_manager`).
//!
//! A connection is a [`connection::HcmConnection`]; each request goes through [`request`], which keeps
//! Envoy's documented order in one place: admit, normalise, mutate, choose the route, run the filters,
//! route, run the filters back, answer, complete.

mod chain;
mod complete;
mod config;
mod connection;
mod forward_proto;
mod host;
mod local_reply;
mod moments;
mod mutate;
mod options;
mod original_ip;
mod overload;
mod path;
mod proxy_status;
mod referer;
mod refuse;
mod request;
mod request_id;
mod response;
mod stats;
mod timers;
mod tracing;
mod whole;
mod xfcc;

use std::{rc::Rc, sync::Arc, time::Instant};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as Proto;

pub use chain::FilterEntry;
pub use config::HcmConfig;
pub use request_id::RequestIds;
pub use stats::{HcmListenerStats, HcmStats, RouterStats, count_response};
pub(crate) use whole::{join as join_body, read as read_body};

use crate::{
    config::{BuildCx, ConfigResult},
    network_filter::{Connection, NetworkFilter, NetworkFilterFactory, TerminalFilter},
    server::Worker,
};

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.http_connection_manager";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        Ok(NetworkFilter::Terminal(Arc::new(HttpConnectionManager(Arc::new(
            HcmConfig::build(proto, cx)?,
        )))))
    }
}

struct HttpConnectionManager(Arc<HcmConfig>);

impl TerminalFilter for HttpConnectionManager {
    fn serve(self: Arc<Self>, worker: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, ()> {
        Box::pin(connection::serve(self.0.clone(), worker, connection))
    }

    fn not_secured(&self, since: Instant) {
        connection::not_secured(self.0.stats.local(), since);
    }
}
