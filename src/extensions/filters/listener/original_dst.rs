//! `envoy.filters.listener.original_dst`: where a redirected connection was to go.

use std::{net::IpAddr, sync::Arc};

use futures_util::future::{LocalBoxFuture, ready};
use socket2::SockRef;
use tokio::net::TcpStream;
use xds_protos::{
    envoy::extensions::filters::listener::original_dst::v3::OriginalDst as Proto,
    google::protobuf::{Value, value::Kind},
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::ConnectionInfo,
    listener::{Accepted, ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
    net::Address,
};

/// The namespace of metadata that tells the destination of an internal connection: `local`.
const METADATA: &str = "envoy.filters.listener.original_dst";

/// Filter state that tells it, and the client.
const LOCAL: &str = "envoy.filters.listener.original_dst.local_ip";
const REMOTE: &str = "envoy.filters.listener.original_dst.remote_ip";

/// The extension.
pub struct Factory;

impl ListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.listener.original_dst";
    type Proto = Proto;

    fn build(&self, proto: Proto, _: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        let Proto {} = proto;
        Ok(Arc::new(OriginalDst))
    }
}

/// The filter; `use_original_dst` of a listener puts one in by itself.
pub struct OriginalDst;

impl ListenerFilter for OriginalDst {
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>> {
        match &*cx.accepted {
            Accepted::Tcp(stream, _) => restore(stream, cx.info),
            Accepted::Internal(_) => told(cx.info),
            Accepted::Unix(..) => {}
        }
        Box::pin(ready(Ok(())))
    }
}

/// What came along with an internal connection: the destination as metadata or as filter state, and the client as
/// filter state.
fn told(info: &mut ConnectionInfo) {
    let local = match info.metadata.borrow().get(METADATA).and_then(|m| m.fields.get("local")) {
        Some(Value {
            kind: Some(Kind::StringValue(text)),
        }) => text.parse().ok(),
        _ => None,
    };
    let state = info.filter_state.borrow();
    let address = |name| state.get(name).and_then(|o| o.as_text()?.parse().ok());
    let (local, remote) = (local.or_else(|| address(LOCAL)), address(REMOTE));
    drop(state);
    if let Some(local) = local {
        info.local_address = Address::Ip(local);
        info.local_address_restored = true;
    }
    if let Some(remote) = remote {
        info.remote_address = Address::Ip(remote);
    }
}

/// Asks the kernel. A connection that was not redirected keeps its address.
fn restore(stream: &TcpStream, info: &mut ConnectionInfo) {
    let socket = SockRef::from(stream);
    let original = match info.local_address.ip() {
        Some(IpAddr::V4(_)) => socket.original_dst_v4(),
        Some(IpAddr::V6(_)) => socket.original_dst_v6(),
        None => return,
    };
    if let Some(original) = original.ok().and_then(|a| a.as_socket()).map(Address::Ip)
        && original != info.local_address
    {
        info.local_address = original;
        info.local_address_restored = true;
    }
}
