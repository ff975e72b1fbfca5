//! `envoy.filters.network.echo`: what comes goes back.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_protos::envoy::extensions::filters::network::echo::v3::Echo as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::stream_info::Progress,
    network_filter::{Connection, NetworkFilter, NetworkFilterFactory, TerminalFilter},
    server::Worker,
};

/// Bytes that are read before they go back.
const BUFFER: usize = 16 * 1024;

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.echo";
    type Proto = Proto;

    fn build(&self, proto: Proto, _: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        let Proto {} = proto;
        Ok(NetworkFilter::Terminal(Arc::new(Echo)))
    }
}

struct Echo;

impl TerminalFilter for Echo {
    fn serve(self: Arc<Self>, _: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            let mut stream = connection.stream;
            let mut buffer = vec![0; BUFFER];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                if let Some(outcome) = &*connection.info.outcome.borrow() {
                    let Progress {
                        bytes_received,
                        bytes_sent,
                        ..
                    } = &*outcome.progress;
                    bytes_received.set(bytes_received.get() + n as u64);
                    bytes_sent.set(bytes_sent.get() + n as u64);
                }
                if stream.write_all(buffer.get(..n).unwrap_or_default()).await.is_err() {
                    return;
                }
                // Nothing else flushes what a transport socket keeps back.
                let _ = stream.flush().await;
            }
            let _ = stream.shutdown().await;
        })
    }
}
