//! `envoy.config.core.v3.SocketOption`: an option by its numbers, for what has no field of its own.

use std::{io, os::fd::AsRawFd};

use xds_protos::envoy::config::core::v3::{
    SocketOption as Proto,
    socket_option::{SocketIpVersion, SocketState, SocketType, Value},
};

use crate::config::{BuildCx, ConfigResult};

/// An option of a TCP socket, set before the socket is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOption {
    level: libc::c_int,
    name: libc::c_int,
    value: Box<[u8]>,
    /// None for sockets of both families.
    ipv4: Option<bool>,
    /// Only TCP sockets are made with these: an option of datagram sockets is passed over.
    applies: bool,
}

impl SocketOption {
    /// Reads an option; its numbers have to fit what the system's call takes.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { description, level, name, state, value, r#type, ip_version } });
        let _ = description;
        let number =
            |field, value: i64| libc::c_int::try_from(value).map_err(|_| cx.error_at(field, "value is out of range"));
        let value = match value {
            // The system reads an int of its own size.
            Some(Value::IntValue(value)) => number("int_value", value)?.to_ne_bytes().into(),
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
            level: number("level", level)?,
            name: number("name", name)?,
            value,
            ipv4,
            // As in Envoy: upstream sockets are only asked before they are bound.
            applies: state == SocketState::StatePrebind as i32 && (stream.is_some() || datagram.is_none()),
        })
    }

    /// Sets it on a TCP socket, if it is meant for such.
    pub fn apply(&self, socket: &impl AsRawFd, is_ipv4: bool) -> io::Result<()> {
        if !self.applies || self.ipv4.is_some_and(|ipv4| ipv4 != is_ipv4) {
            return Ok(());
        }
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
