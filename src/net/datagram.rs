//! Datagrams: sockets for them, received in batches, sent from the address that they were sent to.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg, setsockopt,
        sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RxqOvfl, UdpGroSegment},
    },
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use xds_protos::envoy::config::core::v3::socket_option::SocketState;

use super::ListenOptions;

/// How many datagrams one system call takes at most.
const BATCH: usize = 16;

/// How many datagrams of the largest size the kernel may put together into one (GRO): as many as a UDP length tells.
const GRO_SEGMENTS: usize = 64;

/// Binds a socket of a UDP listener. It tells the address that each datagram was sent to where it listens on all, and
/// what the kernel had to drop.
pub(super) fn bind(address: SocketAddr, options: &ListenOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // No SO_REUSEADDR, which would let any process listen as well.
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    match address.is_ipv6() {
        true if options.transparent => socket.set_ip_transparent_v6(true)?,
        false if options.transparent => socket.set_ip_transparent_v4(true)?,
        _ => {}
    }
    match address.is_ipv6() {
        true if options.freebind => socket.set_freebind_v6(true)?,
        false if options.freebind => socket.set_freebind_v4(true)?,
        _ => {}
    }
    if address.ip().is_unspecified() {
        match address.is_ipv6() {
            true => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
            false => setsockopt(&socket, Ipv4PacketInfo, &true)?,
        }
    }
    setsockopt(&socket, RxqOvfl, &1)?;
    for option in &options.socket_options {
        option.apply_to_datagrams(&socket, SocketState::StatePrebind, address.is_ipv4())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// Has the kernel put datagrams of one sender together where it can. Where it cannot, nothing is lost.
pub fn prefer_gro(socket: &impl AsFd) {
    let _ = setsockopt(socket, UdpGroSegment, &true);
}

/// A datagram as it came off a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedDatagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// The address it was sent to, where the socket listens on all.
    pub to: Option<IpAddr>,
    /// What it says.
    pub bytes: &'a [u8],
}

/// What one call brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatagramBatch {
    /// Datagrams that were too long for the buffer, and are lost.
    pub truncated: u64,
    /// How many the kernel has dropped since the socket was made, if it says so: the queue was full.
    pub overflowed: Option<u32>,
    /// Nothing more waits.
    pub drained: bool,
}

/// The buffer for datagrams of one size, used for one batch after the other.
pub struct DatagramReader {
    slot: usize,
    buffer: Box<[u8]>,
}

impl DatagramReader {
    /// For datagrams of at most `max` bytes (`max_rx_datagram_size`), or so many at once as GRO puts together. With
    /// GRO a longer one that comes alone is taken as well, as in Envoy.
    pub fn new(max: usize, gro: bool) -> Self {
        let (slot, slots) = match gro {
            true => (max.saturating_mul(GRO_SEGMENTS), 1),
            false => (max, BATCH),
        };
        Self {
            slot: slot.max(1),
            buffer: vec![0; slot.max(1) * slots].into_boxed_slice(),
        }
    }

    /// Takes what waits on a socket, at most a batch, and hands it to `each`. Fails with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when nothing waits.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        mut each: impl FnMut(ReceivedDatagram<'_>),
    ) -> io::Result<DatagramBatch> {
        let count = self.buffer.len() / self.slot;
        let mut buffers = self.buffer.chunks_exact_mut(self.slot);
        let mut slots: [_; BATCH] = array::from_fn(|_| [IoSliceMut::new(buffers.next().unwrap_or_default())]);
        let control = cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo, libc::c_int, u32);
        // The kernel shortens what it is given: headers serve one call.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(count, Some(control));
        let messages = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slots.iter_mut().take(count),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        let mut batch = DatagramBatch::default();
        let mut taken = 0;
        for message in messages {
            taken += 1;
            let (mut to, mut segment) = (None, 0);
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
                    }
                    ControlMessageOwned::UdpGroSegments(size) => segment = usize::try_from(size).unwrap_or(0),
                    ControlMessageOwned::RxqOvfl(total) => batch.overflowed = Some(total),
                    _ => {}
                }
            }
            if message.flags.contains(MsgFlags::MSG_TRUNC) {
                batch.truncated += 1;
                continue;
            }
            let Some(from) = message.address.as_ref().and_then(socket_address) else {
                continue;
            };
            let bytes = message.iovs().next().unwrap_or_default();
            match segment {
                0 => each(ReceivedDatagram { from, to, bytes }),
                size => bytes
                    .chunks(size)
                    .for_each(|bytes| each(ReceivedDatagram { from, to, bytes })),
            }
        }
        // One slot says nothing of what comes after it.
        batch.drained = count > 1 && taken < count;
        Ok(batch)
    }
}

/// Sends a datagram, from a certain address of this machine if one is given.
pub fn send_datagram(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
    let pieces = [IoSlice::new(bytes)];
    let to = SockaddrStorage::from(to);
    let fd = socket.as_raw_fd();
    let send = |control: &[ControlMessage<'_>]| sendmsg(fd, &pieces, control, MsgFlags::MSG_DONTWAIT, Some(&to));
    let sent = match from {
        None => send(&[]),
        Some(IpAddr::V4(from)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(from.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(from)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: 0,
            };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
    };
    sent.map(|_| ()).map_err(io::Error::from)
}

/// An IPv4 peer of an IPv6 socket is shown as IPv4.
fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((*v4).into());
    }
    let v6 = SocketAddr::from(*address.as_sockaddr_in6()?);
    Some(match v6.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), v6.port()),
        IpAddr::V6(_) => v6,
    })
}

#[cfg(test)]
mod tests;
