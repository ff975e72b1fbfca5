//! Connections that are made from their client's address (the `original_src` filters).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::SockRef;

/// Where an upstream connection is to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OriginalSource {
    /// The client's address; its port is not kept.
    pub address: IpAddr,
    /// `SO_MARK` of the socket, by which answers are routed back; 0 leaves it off.
    pub mark: u32,
}

impl OriginalSource {
    /// Lets a socket be bound to an address that is not of this machine.
    pub fn prepare(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if self.mark != 0 {
            socket.set_mark(self.mark)?;
        }
        match self.address {
            IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
            IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
        }
    }

    /// What it is bound to: any port.
    pub fn to_bind(&self) -> SocketAddr {
        SocketAddr::new(self.address, 0)
    }
}
