//! `envoy.filters.network.direct_response`: the same bytes for everybody, and good-bye.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::io::AsyncWriteExt;
use xds_protos::envoy::extensions::filters::network::direct_response::v3::Config as Proto;

use crate::{
    config::{BuildCx, ConfigResult, read_data_source},
    network_filter::{Connection, NetworkFilter, NetworkFilterFactory, TerminalFilter},
    server::Worker,
};

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.direct_response";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => Proto { supported { response } });
        let response = cx.opt("response", response, read_data_source)?.unwrap_or_default();
        Ok(NetworkFilter::Terminal(Arc::new(DirectResponse(response.into()))))
    }
}

struct DirectResponse(Bytes);

impl TerminalFilter for DirectResponse {
    fn serve(self: Arc<Self>, _: Rc<Worker>, mut connection: Connection) -> LocalBoxFuture<'static, ()> {
        connection.info.code_details.set(Some("direct_response"));
        Box::pin(async move {
            connection.info.code_details.set(Some("direct_response"));
            // A client that is gone has no use for the rest.
            let written = connection.stream.write_all(&self.0).await;
            if let (Ok(()), Some(outcome)) = (written, &*connection.info.outcome.borrow()) {
                outcome.progress.bytes_sent.set(self.0.len() as u64);
            }
            let _ = connection.stream.shutdown().await;
        })
    }
}
