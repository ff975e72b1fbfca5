//! `envoy.filters.network.connection_limit`: so many connections at once, over all workers.

use std::{
    future::pending,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit as Proto;

use super::RuntimeFlag;
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    server::Worker,
    stats::Stats,
    stats_block,
};

stats_block! {
    /// `connection_limit.<stat_prefix>.*`
    struct ConnectionLimitStats {
        counter limited_connections, "Connections over the limit";
        gauge active_connections, "Connections below the limit, open now";
    }
}

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.connection_limit";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => Proto { supported { stat_prefix, max_connections, delay, runtime_enabled } });
        let Some(max) = max_connections else {
            return Err(cx.error_at("max_connections", "Field 'max_connections' is missing"));
        };
        Ok(NetworkFilter::Gate(Arc::new(ConnectionLimit {
            max: max.value,
            open: AtomicU64::new(0),
            delay: delay.enabled_or(Duration::ZERO),
            enabled: RuntimeFlag::build(runtime_enabled, cx)?,
            stats: cx
                .server
                .stats
                .scope(&format!("connection_limit.{stat_prefix}."))
                .block(),
        })))
    }
}

struct ConnectionLimit {
    max: u64,
    open: AtomicU64,
    /// How long a connection over the limit is kept, so that its client does not come back at once.
    delay: Option<Duration>,
    enabled: RuntimeFlag,
    stats: Stats<ConnectionLimitStats>,
}

/// A place below the limit, given back with the connection.
struct Place(Arc<ConnectionLimit>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.stats.local().active_connections.dec();
    }
}

impl GateFilter for ConnectionLimit {
    fn on_connection(self: Arc<Self>, _: Rc<Worker>, mut connection: Connection) -> LocalBoxFuture<'static, Gated> {
        Box::pin(async move {
            if !self.enabled.get() {
                return Gated::Pass(connection);
            }
            let taken = self
                .open
                .fetch_update(Relaxed, Relaxed, |n| (n < self.max).then_some(n + 1));
            if taken.is_err() {
                self.stats.local().limited_connections.inc();
                if let Some(delay) = self.delay {
                    tokio::time::sleep(delay).await;
                }
                return Gated::Closed(connection.info.clone(), None);
            }
            self.stats.local().active_connections.inc();
            let place = Place(self);
            connection.guards.push(Box::pin(async move {
                let _place = place;
                pending().await
            }));
            Gated::Pass(connection)
        })
    }
}
