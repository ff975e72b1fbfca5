//! What the command line says about hot restart, and the names of its sockets.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::Path,
    time::Duration,
};

use super::HotRestartError;
use crate::cli::Cli;

/// Generations that may live at once: parent, child, and a parent's parent that has not ended yet. Names of sockets
/// repeat after as many epochs, as Envoy's do.
const GENERATIONS: u32 = 3;

/// Attempts at a free base id before giving up (`--use-dynamic-base-id`).
const DYNAMIC_ATTEMPTS: u32 = 5;

/// The flags of hot restart.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--base-id`: tells apart proxies that share a machine (abstract sockets) or a folder (`--socket-path`).
    pub base_id: u32,
    /// `--restart-epoch`: 0 for the first process, one more for each that follows.
    pub epoch: u32,
    /// `--socket-path`: `@name` for abstract sockets, else the beginning of a path.
    pub socket_path: String,
    /// `--socket-mode`: permissions of the socket's file; 0 leaves the umask's.
    pub socket_mode: u32,
    /// `--skip-hot-restart-on-no-parent`: an epoch above 0 starts without its parent too.
    pub skip_on_no_parent: bool,
    /// `--skip-hot-restart-parent-stats`: statistics start at zero.
    pub skip_parent_stats: bool,
    /// `--parent-shutdown-time-s`
    pub parent_shutdown: Duration,
}

impl Options {
    /// Reads the flags; none with `--disable-hot-restart`.
    pub fn read(cli: &Cli) -> Result<Option<Self>, HotRestartError> {
        if cli.disable_hot_restart {
            return Ok(None);
        }
        if cli.use_dynamic_base_id && cli.restart_epoch > 0 {
            return Err(HotRestartError::DynamicWithEpoch(cli.restart_epoch));
        }
        Ok(Some(Self {
            base_id: cli.base_id,
            epoch: cli.restart_epoch,
            socket_path: cli.socket_path.clone(),
            socket_mode: cli.socket_mode,
            skip_on_no_parent: cli.skip_hot_restart_on_no_parent,
            skip_parent_stats: cli.skip_hot_restart_parent_stats,
            parent_shutdown: Duration::from_secs(cli.parent_shutdown_time_s),
        }))
    }

    /// Name of the socket that a process of this epoch listens at; Envoy's.
    pub fn name(&self, epoch: u32) -> String {
        let number = self.base_id.wrapping_mul(10).wrapping_add(epoch % GENERATIONS);
        format!("{}_parent_{number}", self.socket_path)
    }

    /// Listens for the process that is to follow this one. With a dynamic base id, at the first free one.
    pub fn listen(&mut self, dynamic: bool) -> Result<UnixListener, HotRestartError> {
        let mut attempts = if dynamic { DYNAMIC_ATTEMPTS } else { 1 };
        loop {
            if dynamic {
                // A tenth of the numbers there are: ten times the id must not wrap.
                self.base_id = fastrand::u32(0..u32::MAX / 10);
            }
            attempts -= 1;
            match bind(&self.name(self.epoch), self.socket_mode) {
                Ok(listener) => return Ok(listener),
                Err(e) if attempts == 0 => {
                    return Err(HotRestartError::Bind {
                        base_id: self.base_id.wrapping_mul(10),
                        id: self.epoch % GENERATIONS,
                        errno: e.raw_os_error().unwrap_or_default(),
                        name: self.name(self.epoch),
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// Connects to the process before this one.
    pub fn connect_parent(&self) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&address(&self.name(self.epoch.wrapping_sub(1)))?)
    }
}

fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

fn bind(name: &str, mode: u32) -> io::Result<UnixListener> {
    let at = address(name)?;
    if at.as_pathname().is_some() && Path::new(name).exists() {
        // A file that nobody listens at was left by a process that did not end by itself.
        if UnixStream::connect_addr(&at).is_ok() {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        std::fs::remove_file(name)?;
    }
    let listener = UnixListener::bind_addr(&at)?;
    if let Some(path) = at.as_pathname().filter(|_| mode != 0) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(listener)
}
