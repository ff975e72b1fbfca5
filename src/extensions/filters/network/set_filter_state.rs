//! `envoy.filters.network.set_filter_state`: leaves formatted texts in the connection's filter state.

use std::{
    future::pending,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::extensions::filters::network::set_filter_state::v3::Config as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::common::set_filter_state::FilterStateValues,
    formatter::FormatCx,
    http::{ConnectionInfo, StreamInfo},
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory, hold::hold},
    server::Worker,
};

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.set_filter_state";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => Proto {
            supported { on_new_connection, on_downstream_tls_handshake, on_downstream_data }
        });
        Ok(NetworkFilter::Gate(Arc::new(SetFilterState {
            new: FilterStateValues::build("on_new_connection", on_new_connection, cx)?,
            handshake: FilterStateValues::build("on_downstream_tls_handshake", on_downstream_tls_handshake, cx)?,
            data: FilterStateValues::build("on_downstream_data", on_downstream_data, cx)?,
        })))
    }
}

struct SetFilterState {
    new: FilterStateValues,
    handshake: FilterStateValues,
    data: FilterStateValues,
}

impl GateFilter for SetFilterState {
    fn on_connection(self: Arc<Self>, _: Rc<Worker>, mut connection: Connection) -> LocalBoxFuture<'static, Gated> {
        // Filters run when the handshake is done: both moments are this one.
        set(&self.new, &connection.info);
        set(&self.handshake, &connection.info);
        if !self.data.is_empty() {
            let (stream, held) = hold(connection.stream, &connection.info.held);
            connection.stream = stream;
            let info = connection.info.clone();
            connection.guards.push(Box::pin(async move {
                held.bytes().await;
                set(&self.data, &info);
                held.open();
                pending().await
            }));
        }
        Box::pin(async { Gated::Pass(connection) })
    }
}

fn set(values: &FilterStateValues, info: &Rc<ConnectionInfo>) {
    if values.is_empty() {
        return;
    }
    let mut stream = StreamInfo::new(info.clone(), None);
    stream.metadata.clone_from(&info.metadata.borrow());
    stream.progress.bytes_received.set(info.held.load(Ordering::Relaxed));
    let cx = FormatCx {
        request: None,
        response: None,
        info: &stream,
    };
    // Each value may read those before it.
    for value in values.iter() {
        if let Some(object) = value.object(&cx) {
            object.set(&mut info.filter_state.borrow_mut());
        }
    }
}
