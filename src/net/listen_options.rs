//! How listen sockets are made, and TCP keepalive.

use std::{io, sync::Arc, time::Duration};

use socket2::TcpKeepalive;
use xds_protos::{envoy::config::core::v3::TcpKeepalive as Proto, google::protobuf::UInt32Value};

use super::SocketOption;
use crate::config::{BuildCx, ConfigResult};

/// How a listen socket is made: the fields of `envoy.config.listener.v3.Listener` that concern it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// `SocketAddress.protocol`: UDP.
    pub datagram: bool,
    /// `enable_reuse_port`, default true: one socket per worker; false: one shared socket.
    pub reuse_port: bool,
    /// `tcp_backlog_size`; none for as many as the kernel allows (`net.core.somaxconn`), which is Envoy's default.
    pub backlog: Option<u32>,
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
    /// `enable_mptcp`: Multipath TCP.
    pub mptcp: bool,
    /// `SocketAddress.network_namespace_filepath`: where the socket lives, if not where the process does.
    pub namespace: Option<Arc<str>>,
    /// `socket_options`, each for its moment.
    pub socket_options: Vec<SocketOption>,
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

    /// Puts the options on a socket; as in Envoy, a 0 anywhere leaves keepalive off.
    pub fn apply(&self, socket: &socket2::SockRef<'_>) -> io::Result<()> {
        if self.probes == Some(0) || self.time == Some(Duration::ZERO) || self.interval == Some(Duration::ZERO) {
            return Ok(());
        }
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
