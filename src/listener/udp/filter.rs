//! UDP listener filters: who takes the datagrams of a listener.
//!
//! A filter is configured once, and made once for each socket of each worker. It is told of every datagram in turn and
//! must not wait; what has to wait it does in tasks of its own.

use std::{io, net::SocketAddr, os::fd::AsFd, rc::Rc, sync::Arc};

use tokio::net::UdpSocket;
use xds_protos::prost::{Message, Name};

use crate::{
    config::{BuildCx, ConfigResult},
    listener::ListenerConfig,
    net::send_datagram,
    server::Worker,
};

/// What a UDP listener filter extension is, typed for its author.
pub trait UdpListenerFilterFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.filters.udp_listener.udp_proxy`.
    const NAME: &'static str;
    /// The filter's configuration message.
    type Proto: Message + Name + Default;
    /// Builds the configuration that all workers share.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpListenerFilter>>;
}

/// A UDP listener filter as configured.
pub trait UdpListenerFilter: Send + Sync {
    /// The filter of one socket.
    fn create(&self, cx: &UdpFilterCx) -> Box<dyn UdpReadFilter>;
}

/// What a filter is made for. It is dropped when the listener stops or is replaced.
pub struct UdpFilterCx {
    /// The worker of the socket.
    pub worker: Rc<Worker>,
    /// The listener, as it is configured now.
    pub listener: Arc<ListenerConfig>,
    /// The way back.
    pub downstream: UdpDownstream,
}

/// A UDP listener filter at one socket.
pub trait UdpReadFilter {
    /// A datagram came.
    fn on_data(&mut self, datagram: &Datagram<'_>) -> DatagramNext;
    /// The socket could not be read.
    fn on_receive_error(&mut self, error: &io::Error) -> DatagramNext;
}

/// A datagram that came to a listener.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The address it was sent to.
    pub local: SocketAddr,
    /// Who sent it.
    pub peer: SocketAddr,
    /// What it says; may be nothing.
    pub bytes: &'a [u8],
}

/// What becomes of a datagram after a filter has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramNext {
    /// The next filter sees it.
    Continue,
    /// It is dealt with.
    Stop,
}

/// Sends datagrams from a listener's socket.
#[derive(Clone)]
pub struct UdpDownstream {
    socket: Rc<UdpSocket>,
    /// It listens on all addresses: each datagram says from which one it goes.
    any_address: bool,
    ipv6: bool,
}

impl UdpDownstream {
    pub(super) fn new(socket: Rc<UdpSocket>) -> Self {
        let bound = socket.local_addr();
        Self {
            any_address: bound.as_ref().is_ok_and(|a| a.ip().is_unspecified()),
            ipv6: bound.is_ok_and(|a| a.is_ipv6()),
            socket,
        }
    }

    /// Sends `bytes` to a peer, from the address it has sent to. What the socket has no room for now is not sent, as
    /// in Envoy: that is what datagrams are for.
    pub fn send(&self, bytes: &[u8], from: SocketAddr, to: SocketAddr) -> io::Result<()> {
        let to = match to {
            SocketAddr::V4(v4) if self.ipv6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            other => other,
        };
        let from = self.any_address.then_some(match from {
            SocketAddr::V4(v4) if self.ipv6 => v4.ip().to_ipv6_mapped().into(),
            other => other.ip(),
        });
        send_datagram(self.socket.as_fd(), bytes, to, from)
    }
}
