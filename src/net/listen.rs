//! Listen sockets: bound on the control side so that errors reach the control plane, one per worker.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt,
    },
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use xds_protos::{envoy::config::core::v3::TcpKeepalive as Proto, google::protobuf::UInt32Value};

use super::{Address, datagram};
use crate::config::{BuildCx, ConfigResult};

/// How a listen socket is made: the fields of `envoy.config.listener.v3.Listener` that concern it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// `SocketAddress.protocol`: UDP.
    pub datagram: bool,
    /// `enable_reuse_port`, default true: one socket per worker; false: one shared socket.
    pub reuse_port: bool,
    /// `tcp_backlog_size`, default 128 as Envoy's SOMAXCONN.
    pub backlog: i32,
    /// `transparent`: IP_TRANSPARENT.
    pub transparent: bool,
    /// `freebind`: IP_FREEBIND.
    pub freebind: bool,
    /// `tcp_fast_open_queue_length`; none leaves it off.
    pub fast_open: Option<u32>,
    /// `SocketAddress.ipv4_compat`: an IPv6 socket takes IPv4 too.
    pub ipv4_compat: bool,
    /// `tcp_keepalive`
    pub keepalive: Option<Keepalive>,
    /// `Pipe.mode`: permissions of the unix socket's file; 0 leaves the umask's.
    pub pipe_mode: u32,
}

/// `envoy.config.core.v3.TcpKeepalive`; unset values stay the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keepalive {
    /// Probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

impl Keepalive {
    /// Reads `TcpKeepalive`, whose times are seconds.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { keepalive_probes, keepalive_time, keepalive_interval } });
        let seconds = |v: Option<UInt32Value>| v.map(|v| Duration::from_secs(v.value.into()));
        Ok(Self {
            probes: keepalive_probes.map(|v| v.value),
            time: seconds(keepalive_time),
            interval: seconds(keepalive_interval),
        })
    }

    /// Puts the options on a socket.
    pub fn apply(&self, socket: &socket2::SockRef<'_>) -> io::Result<()> {
        let mut options = TcpKeepalive::new();
        if let Some(t) = self.time {
            options = options.with_time(t);
        }
        if let Some(t) = self.interval {
            options = options.with_interval(t);
        }
        if let Some(n) = self.probes {
            options = options.with_retries(n);
        }
        socket.set_tcp_keepalive(&options)
    }
}

/// A bound and listening socket, not yet given to a worker's reactor.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP
    Tcp(std::net::TcpListener),
    /// Unix stream socket
    Unix(std::os::unix::net::UnixListener),
    /// UDP
    Udp(std::net::UdpSocket),
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
            Self::Udp(s) => s.as_fd(),
        }
    }
}

impl ListenSocket {
    /// Another handle of the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(s) => s.try_clone().map(Self::Tcp),
            Self::Unix(s) => s.try_clone().map(Self::Unix),
            Self::Udp(s) => s.try_clone().map(Self::Udp),
        }
    }

    /// The address it is bound to, with the port the kernel chose for port 0.
    pub fn local_address(&self, asked: &Address) -> Address {
        match self {
            Self::Tcp(s) => s.local_addr().map_or_else(|_| asked.clone(), Address::Ip),
            Self::Unix(_) => asked.clone(),
            Self::Udp(s) => s.local_addr().map_or_else(|_| asked.clone(), Address::Ip),
        }
    }
}

/// Binds one socket per worker (or one for all), all at the same address.
///
/// With port 0 the first socket's port is used for the others.
pub fn bind(address: &Address, options: &ListenOptions, workers: usize) -> io::Result<Vec<ListenSocket>> {
    let workers = workers.max(1);
    let first = bind_one(address, options)?;
    let bound = first.local_address(address);
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        let own = options.reuse_port && matches!(address, Address::Ip(_));
        sockets.push(if own {
            bind_one(&bound, options)?
        } else {
            first.try_clone()?
        });
    }
    sockets.push(first);
    Ok(sockets)
}

fn bind_one(address: &Address, options: &ListenOptions) -> io::Result<ListenSocket> {
    match address {
        Address::Ip(ip) if options.datagram => datagram::bind(*ip, options).map(ListenSocket::Udp),
        Address::Ip(ip) => {
            let socket = Socket::new(Domain::for_address(*ip), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if options.reuse_port {
                socket.set_reuse_port(true)?;
            }
            if ip.is_ipv6() {
                socket.set_only_v6(!options.ipv4_compat)?;
            }
            if options.transparent {
                if ip.is_ipv6() {
                    socket.set_ip_transparent_v6(true)?
                } else {
                    socket.set_ip_transparent_v4(true)?
                }
            }
            if options.freebind {
                if ip.is_ipv6() {
                    socket.set_freebind_v6(true)?
                } else {
                    socket.set_freebind_v4(true)?
                }
            }
            if let Some(keepalive) = options.keepalive {
                keepalive.apply(&socket2::SockRef::from(&socket))?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::from(*ip))?;
            socket.listen(options.backlog)?;
            Ok(ListenSocket::Tcp(socket.into()))
        }
        Address::Pipe(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let name = path
                .strip_prefix('@')
                .map_or_else(|| path.to_string(), |n| format!("\0{n}"));
            if !path.starts_with('@') {
                // A file left by a process that is gone would make the bind fail; Envoy removes it too.
                match std::fs::remove_file(&**path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            socket.bind(&SockAddr::unix(name)?)?;
            if options.pipe_mode != 0 && !path.starts_with('@') {
                std::fs::set_permissions(&**path, std::fs::Permissions::from_mode(options.pipe_mode))?;
            }
            socket.listen(options.backlog)?;
            Ok(ListenSocket::Unix(socket.into()))
        }
        Address::Internal { .. } => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "internal listeners have no socket",
        )),
    }
}
