//! A session's socket towards its host.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::config::Config;
use crate::{
    net::{Address, prefer_gro, send_datagram},
    upstream::Host,
};

/// A socket for one host. It has no port before the first datagram is sent.
pub(super) struct Upstream {
    pub(super) host: Arc<Host>,
    pub(super) socket: Rc<UdpSocket>,
    address: SocketAddr,
    connected: Cell<bool>,
}

impl Upstream {
    pub(super) fn open(host: Arc<Host>, config: &Config) -> io::Result<Self> {
        let Address::Ip(address) = host.present_address() else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the host has no IP address"));
        };
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        match address.is_ipv6() {
            true if config.original_source => socket.set_ip_transparent_v6(true)?,
            false if config.original_source => socket.set_ip_transparent_v4(true)?,
            _ => {}
        }
        if config.datagrams.gro {
            prefer_gro(&socket);
        }
        Ok(Self {
            host,
            socket: Rc::new(UdpSocket::from_std(socket.into())?),
            address,
            connected: Cell::new(false),
        })
    }

    /// Sends a datagram, as if `client` had sent it where one is given.
    pub(super) fn send(&self, bytes: &[u8], client: Option<IpAddr>) -> io::Result<()> {
        if client.is_some() {
            return send_datagram(self.socket.as_fd(), bytes, self.address, client);
        }
        let socket = SockRef::from(&*self.socket);
        if !self.connected.get() {
            // Ports are shared by sockets that are connected to different hosts: there are enough of them.
            socket.connect(&SockAddr::from(self.address))?;
            self.connected.set(true);
        }
        socket.send(bytes).map(|_| ())
    }

    /// `%UPSTREAM_LOCAL_ADDRESS%`, once it has one.
    pub(super) fn local_address(&self) -> Option<Address> {
        let address = self.socket.local_addr().ok()?;
        (address.port() > 0).then_some(Address::Ip(address))
    }

    pub(super) fn remote_address(&self) -> Address {
        Address::Ip(self.address)
    }
}
