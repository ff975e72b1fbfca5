//! Listen sockets: bound on the control side so that errors reach the control plane, one per worker. They listen once
//! their listener serves: until then clients are refused, as Envoy does it.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::PermissionsExt,
    },
    sync::Arc,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use xds_protos::envoy::config::core::v3::socket_option::SocketState;

use super::{Address, ListenOptions, SocketOption, datagram, errno_text, network_namespace};

/// A bound socket, not yet given to a worker's reactor.
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

/// Why an address cannot be listened on, in Envoy's words.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refuses the address: it is in use, or not of this machine.
    #[error("cannot bind '{address}': {}", errno_text(error))]
    Bind {
        /// What was to be bound.
        address: Address,
        /// The system's reason.
        error: io::Error,
    },
    /// An option that is set before the socket is bound.
    #[error("ListenSocket: Setting socket options failed")]
    PrebindOption,
    /// An option that is set once the socket is bound.
    #[error("{0}: Setting socket options failed")]
    BoundOption(Arc<str>),
    /// `network_namespace_filepath` cannot be opened.
    #[error("failed to open netns file {path}: {}", errno_text(error))]
    NamespaceFile {
        /// The path.
        path: Arc<str>,
        /// The system's reason.
        error: io::Error,
    },
    /// The file is no network namespace, or may not be entered.
    #[error("failed to set netns to {path} (fd={fd}): {}", errno_text(error))]
    Namespace {
        /// The path.
        path: Arc<str>,
        /// The open file.
        fd: i32,
        /// The system's reason.
        error: io::Error,
    },
    /// No connections can be taken: somebody else listens on the address.
    #[error("cannot listen() errno={}", .0.raw_os_error().unwrap_or_default())]
    Listen(io::Error),
    /// An option that is set once the socket listens.
    #[error("cannot set post-listen socket option on socket: {0}")]
    ListeningOption(Address),
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

    /// Starts to take connections. A socket that does so already only takes the queue's length.
    pub fn listen(&self, address: &Address, options: &ListenOptions) -> Result<(), ListenError> {
        if matches!(self, Self::Udp(_)) {
            return Ok(());
        }
        // The kernel cuts it to `net.core.somaxconn`.
        let backlog = options.backlog.and_then(|n| i32::try_from(n).ok()).unwrap_or(i32::MAX);
        let socket = SockRef::from(self);
        socket.listen(backlog).map_err(ListenError::Listen)?;
        let failed = || ListenError::ListeningOption(self.local_address(address));
        if let Some(length) = options.fast_open {
            SocketOption::tcp_fast_open(length)
                .apply(&*socket, SocketState::StateListening, None)
                .map_err(|_| failed())?;
        }
        apply(&options.socket_options, &*socket, SocketState::StateListening, address).map_err(|_| failed())
    }
}

/// Binds one socket per worker (or one for all), all at the same address. `listener` names their owner in errors.
///
/// With port 0 the first socket's port is used for the others.
pub fn bind(
    address: &Address,
    options: &ListenOptions,
    workers: usize,
    listener: &Arc<str>,
) -> Result<Vec<ListenSocket>, ListenError> {
    let bind_all = || {
        let first = bind_one(address, options, listener)?;
        let bound = first.local_address(address);
        let mut sockets = Vec::with_capacity(workers);
        for _ in 1..workers.max(1) {
            let own = options.reuse_port && matches!(address, Address::Ip(_));
            sockets.push(match own {
                true => bind_one(&bound, options, listener)?,
                false => first.try_clone().map_err(|error| refused(address, error))?,
            });
        }
        sockets.push(first);
        Ok(sockets)
    };
    match &options.namespace {
        Some(path) => network_namespace::run_in(path, bind_all),
        None => bind_all(),
    }
}

fn refused(address: &Address, error: io::Error) -> ListenError {
    let address = address.clone();
    ListenError::Bind { address, error }
}

fn bind_one(address: &Address, options: &ListenOptions, listener: &Arc<str>) -> Result<ListenSocket, ListenError> {
    let socket = match address {
        Address::Ip(ip) if options.datagram => {
            ListenSocket::Udp(datagram::bind(*ip, options).map_err(|error| refused(address, error))?)
        }
        Address::Ip(_) => tcp(address, options)?,
        Address::Pipe(path) => unix(path, options).map_err(|error| refused(address, error))?,
        Address::Internal { .. } => return Err(refused(address, io::ErrorKind::Unsupported.into())),
    };
    // Nothing of these is known to sockets of other families.
    let of_ip = options.transparent || options.freebind;
    let failed = || ListenError::BoundOption(listener.clone());
    match &socket {
        ListenSocket::Unix(_) if of_ip => {
            tracing::warn!(%listener, "Failed to set IP socket option on non-IP socket");
            return Err(failed());
        }
        ListenSocket::Udp(udp) => {
            for option in &options.socket_options {
                let set = option.apply_to_datagrams(
                    udp,
                    SocketState::StateBound,
                    address.ip().is_some_and(|ip| ip.is_ipv4()),
                );
                set.map_err(|_| failed())?;
            }
        }
        socket => apply(
            &options.socket_options,
            &*SockRef::from(socket),
            SocketState::StateBound,
            address,
        )
        .map_err(|_| failed())?,
    }
    Ok(socket)
}

fn tcp(address: &Address, options: &ListenOptions) -> Result<ListenSocket, ListenError> {
    let Address::Ip(ip) = address else {
        return Err(refused(address, io::ErrorKind::Unsupported.into()));
    };
    let protocol = match options.mptcp {
        true => Protocol::MPTCP,
        false => Protocol::TCP,
    };
    let socket =
        Socket::new(Domain::for_address(*ip), Type::STREAM, Some(protocol)).map_err(|e| refused(address, e))?;
    let prepare = || {
        socket.set_reuse_address(true)?;
        if ip.is_ipv6() {
            socket.set_only_v6(!options.ipv4_compat)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if options.transparent {
            match ip.is_ipv6() {
                true => socket.set_ip_transparent_v6(true)?,
                false => socket.set_ip_transparent_v4(true)?,
            }
        }
        if options.freebind {
            match ip.is_ipv6() {
                true => socket.set_freebind_v6(true)?,
                false => socket.set_freebind_v4(true)?,
            }
        }
        if let Some(keepalive) = options.keepalive {
            keepalive.apply(&SockRef::from(&socket))?;
        }
        apply(&options.socket_options, &socket, SocketState::StatePrebind, address)?;
        socket.set_nonblocking(true)
    };
    prepare().map_err(|error: io::Error| {
        tracing::warn!(%address, %error, "a listen socket's option was refused");
        ListenError::PrebindOption
    })?;
    socket.bind(&SockAddr::from(*ip)).map_err(|e| refused(address, e))?;
    Ok(ListenSocket::Tcp(socket.into()))
}

/// Options of the moment before are not asked of unix sockets, as in Envoy.
fn unix(path: &str, options: &ListenOptions) -> io::Result<ListenSocket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let (name, is_file) = match path.strip_prefix('@') {
        Some(name) => (format!("\0{name}"), false),
        None => (path.to_owned(), true),
    };
    if is_file {
        // A file left by a process that is gone would make the bind fail; Envoy removes it too.
        let _ = std::fs::remove_file(path);
    }
    socket.bind(&SockAddr::unix(name)?)?;
    if options.pipe_mode != 0 && is_file {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.pipe_mode))?;
    }
    Ok(ListenSocket::Unix(socket.into()))
}

/// Sets those options whose moment this is.
fn apply(options: &[SocketOption], socket: &impl AsRawFd, at: SocketState, address: &Address) -> io::Result<()> {
    let is_ipv4 = address.ip().map(|ip| ip.is_ipv4());
    for option in options {
        option.apply(socket, at, is_ipv4).inspect_err(|error| {
            let error = errno_text(error);
            tracing::warn!(%address, "Setting {option} option on socket failed: {error}");
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
