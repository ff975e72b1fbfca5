//! `envoy.filters.listener.original_dst`: where a redirected connection was to go.

use std::{net::IpAddr, sync::Arc};

use futures_util::future::{LocalBoxFuture, ready};
use socket2::SockRef;
use tokio::net::TcpStream;
use xds_protos::envoy::extensions::filters::listener::original_dst::v3::OriginalDst as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::ConnectionInfo,
    listener::{Accepted, ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
    net::Address,
};

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
        if let Accepted::Tcp(stream, _) = cx.accepted {
            restore(stream, cx.info);
        }
        Box::pin(ready(Ok(())))
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
