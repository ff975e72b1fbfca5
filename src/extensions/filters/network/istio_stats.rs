//! `istio.stats` of connections: told while they are open, and when they end.

use std::{future::pending, rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::stats::PluginConfig as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::common::istio_stats::{CountedConnection, IstioStats, metadata_of_cluster},
    http::{ConnectionInfo, StreamInfo},
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    server::Worker,
};

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.istio_stats";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        Ok(NetworkFilter::Gate(Arc::new(StatsFilter(IstioStats::build(
            proto, cx,
        )?))))
    }
}

struct StatsFilter(Arc<IstioStats>);

impl GateFilter for StatsFilter {
    fn on_connection(
        self: Arc<Self>,
        worker: Rc<Worker>,
        mut connection: Connection,
    ) -> LocalBoxFuture<'static, Gated> {
        // Whoever serves the connection is to tell of it.
        connection.info.outcome.borrow_mut().get_or_insert_default();
        let mut told = Told {
            stats: self.0.clone(),
            worker,
            info: connection.info.clone(),
            counted: None,
        };
        connection.guards.push(Box::pin(async move {
            match told.stats.reporting {
                None => pending().await,
                Some(every) => loop {
                    tokio::time::sleep(every).await;
                    told.report(false);
                },
            }
        }));
        Box::pin(async { Gated::Pass(connection) })
    }
}

/// A connection, and what was told of it. The rest is told when it is dropped.
struct Told {
    stats: Arc<IstioStats>,
    worker: Rc<Worker>,
    info: Rc<ConnectionInfo>,
    counted: Option<CountedConnection>,
}

impl Told {
    fn report(&mut self, ended: bool) {
        if self.counted.is_none() {
            let info = self.stream();
            // Who is at the other end may be known only after the first bytes.
            if ended || self.stats.is_settled(&info) {
                let cluster = metadata_of_cluster(&info, &self.worker);
                let counted = self.stats.connection(&info, cluster.as_deref());
                counted.opened();
                self.counted = Some(counted);
            }
        }
        let Some(counted) = &mut self.counted else { return };
        counted.moved(
            self.info
                .outcome
                .borrow()
                .as_ref()
                .map_or((0, 0), |outcome| outcome.bytes()),
        );
        if ended {
            counted.closed();
        }
    }

    /// The connection with what is known of its upstream.
    fn stream(&self) -> StreamInfo {
        let mut stream = StreamInfo::new(self.info.clone(), None);
        if let Some(outcome) = &*self.info.outcome.borrow() {
            stream.flags = outcome.flags;
            stream.upstream = outcome.upstream.clone();
        }
        stream.take_findings();
        stream
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.report(true);
    }
}
