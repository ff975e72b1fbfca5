//! `envoy.config.core.v3.SocketOption`: an option by its numbers, for what has no field of its own.

use std::{fmt, io, os::fd::AsRawFd};

use xds_protos::envoy::config::core::v3::{
    SocketOption as Proto,
    socket_option::{SocketIpVersion, SocketState, SocketType, Value},
};

use crate::config::{BuildCx, ConfigResult};

/// An option of a stream socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOption {
    level: libc::c_int,
    name: libc::c_int,
    value: Box<[u8]>,
    /// None for sockets of both families.
    ipv4: Option<bool>,
    /// When it is set.
    state: SocketState,
    /// Whether stream sockets are meant, and datagram sockets.
    kinds: Kinds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kinds {
    stream: bool,
    datagram: bool,
}

impl SocketOption {
    /// Reads an option. As in Envoy, numbers are cut to what the system's call takes.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { description, level, name, state, value, r#type, ip_version } });
        let _ = description;
        let number = |value: i64| value as libc::c_int;
        let value = match value {
            // The system reads an int of its own size.
            Some(Value::IntValue(value)) => number(value).to_ne_bytes().into(),
            Some(Value::BufValue(bytes)) => bytes.into(),
            None => return Err(cx.error_at("value", "value is required")),
        };
        let ipv4 = match SocketIpVersion::try_from(ip_version) {
            Ok(SocketIpVersion::Ipv4) => Some(true),
            Ok(SocketIpVersion::Ipv6) => Some(false),
            _ => None,
        };
        let SocketType { stream, datagram } = r#type.unwrap_or_default();
        Ok(Self {
            level: number(level),
            name: number(name),
            value,
            ipv4,
            state: SocketState::try_from(state).unwrap_or_default(),
            kinds: Kinds {
                stream: stream.is_some() || datagram.is_none(),
                datagram: datagram.is_some() || stream.is_none(),
            },
        })
    }

    /// `TCP_FASTOPEN`, which asks for a socket that listens.
    pub fn tcp_fast_open(queue_length: u32) -> Self {
        Self {
            level: libc::IPPROTO_TCP,
            name: libc::TCP_FASTOPEN,
            value: queue_length.to_ne_bytes().into(),
            ipv4: None,
            state: SocketState::StateListening,
            kinds: Kinds {
                stream: true,
                datagram: false,
            },
        }
    }

    /// Sets it on a stream socket at one of its moments, if it is meant for that. `is_ipv4`: none for unix sockets.
    pub fn apply(&self, socket: &impl AsRawFd, at: SocketState, is_ipv4: Option<bool>) -> io::Result<()> {
        match self.kinds.stream && self.is_for(at, is_ipv4) {
            true => self.set(socket),
            false => Ok(()),
        }
    }

    /// As [`Self::apply`], for a datagram socket.
    pub fn apply_to_datagrams(&self, socket: &impl AsRawFd, at: SocketState, is_ipv4: bool) -> io::Result<()> {
        match self.kinds.datagram && self.is_for(at, Some(is_ipv4)) {
            true => self.set(socket),
            false => Ok(()),
        }
    }

    fn is_for(&self, at: SocketState, is_ipv4: Option<bool>) -> bool {
        self.state == at && self.ipv4.is_none_or(|ipv4| Some(ipv4) == is_ipv4)
    }

    fn set(&self, socket: &impl AsRawFd) -> io::Result<()> {
        let length = libc::socklen_t::try_from(self.value.len()).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads `length` bytes of
        // `value`, which outlives the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                self.level,
                self.name,
                self.value.as_ptr().cast(),
                length,
            )
        };
        match set {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Level and name, as Envoy shows an option that fails.
impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level, self.name)
    }
}
