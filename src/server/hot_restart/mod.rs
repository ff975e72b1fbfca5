//! Hot restart: a process hands its sockets and statistics to the next one, and lets its connections end.
//!
//! Envoy's flags and visible behaviour, without its shared memory: everything goes over one unix socket
//! ([`protocol`]). Every process listens there for the one that is to follow it ([`parent`]); one of an epoch above 0
//! first asks the one before it ([`child`]). In order:
//!
//! 1. The child connects and says who it is.
//! 2. For each listener it takes the parent's sockets instead of binding ([`sockets`]), then the admin's.
//! 3. It initialises. The parent serves all the while, and goes on as if nothing had been if the child dies.
//! 4. The child's workers accept; it asks the parent to drain: the parent closes its sockets and lets connections go.
//! 5. The child asks for statistics at every flush.
//! 6. After `--parent-shutdown-time-s` it tells the parent to end.

mod child;
mod gate;
mod options;
mod parent;
mod protocol;
mod sockets;

#[cfg(test)]
mod tests;

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

pub use gate::{AdminGate, AdminState};
pub use options::Options;
pub use protocol::version_text;
pub use sockets::{SharedSocket, SharedSockets, SocketKind};

use super::ServerContext;
use crate::{
    cli::Cli,
    net::{Address, ListenError, ListenOptions, ListenSocket},
};

/// Why a process cannot take part, and ends.
#[derive(Debug, thiserror::Error)]
pub enum HotRestartError {
    /// The base id of a later epoch is that of the first.
    #[error("cannot use --restart-epoch={0} with --use-dynamic-base-id")]
    DynamicWithEpoch(u32),
    /// Another process listens at the socket of this epoch, or the path cannot be used.
    #[error(
        "unable to bind domain socket with base_id={base_id}, id={id}, errno={errno} (see --base-id option): '{name}'"
    )]
    Bind {
        /// Ten times `--base-id`.
        base_id: u32,
        /// Place of the epoch among those that may live at once.
        id: u32,
        /// The system's error.
        errno: i32,
        /// The socket.
        name: String,
    },
    /// Nobody answers there.
    #[error(
        "hot restart: no parent of epoch {epoch} answers at '{name}': {source} (see --skip-hot-restart-on-no-parent)"
    )]
    NoParent {
        /// The parent's epoch.
        epoch: u32,
        /// Where it should listen.
        name: String,
        /// What happened.
        source: io::Error,
    },
    /// The parent does not want this child.
    #[error("hot restart: the parent refuses: {0}")]
    Refused(String),
}

/// The part of one process in hot restarts. Without `--disable-hot-restart` there is always one.
#[derive(Debug, Default)]
pub struct HotRestart {
    options: Option<Options>,
    /// Where the next process connects; until [`HotRestart::serve`].
    listener: Mutex<Option<UnixListener>>,
    /// The process before this one, until it ends.
    parent: Mutex<Option<child::Link>>,
    /// What the parent told of itself.
    inherited: Inherited,
    /// Sockets for the next process.
    sockets: SharedSockets,
    /// Whether the admin accepts.
    admin: AdminGate,
    /// The next process serves: this one ends.
    drained: AtomicBool,
    /// The process id of the one that is about to follow; 0 when there is none.
    successor: AtomicU64,
    /// The parent was told to drain: it has no sockets to give any more.
    taken_over: AtomicBool,
    /// Cloned once per connection that is answered.
    turns: Arc<()>,
}

/// What comes from the parent and is not a value of the store.
#[derive(Debug, Default)]
struct Inherited {
    first_started: OnceLock<SystemTime>,
    generation: AtomicU64,
    connections: AtomicU64,
    allocated: AtomicU64,
    heap: AtomicU64,
    physical: AtomicU64,
}

/// Numbers of the parent, zero once it is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParentNumbers {
    /// `server.parent_connections`
    pub connections: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Bytes of heap.
    pub heap: u64,
    /// Bytes of physical memory.
    pub physical: u64,
}

impl HotRestart {
    /// Takes this process's place in the line: listens for the next one, and finds the one before it.
    pub fn open(cli: &Cli) -> Result<Self, HotRestartError> {
        let Some(mut options) = Options::read(cli)? else {
            return Ok(Self::default());
        };
        let listener = options.listen(cli.use_dynamic_base_id)?;
        if let Some(path) = &cli.base_id_path
            && let Err(error) = std::fs::write(path, options.base_id.to_string())
        {
            tracing::error!(path = %path.display(), %error, "cannot open base id output file for writing");
        }
        // Whoever starts generations and dies leaves none of them behind, as Envoy has it.
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)) {
            tracing::warn!(%error, "this process will outlive the one that started it");
        }
        tracing::info!(epoch = options.epoch, base_id = options.base_id, version = %version_text(), "initializing");
        let this = Self {
            listener: Mutex::new(Some(listener)),
            ..Self::default()
        };
        let parent = match options.epoch {
            0 => None,
            _ => child::Link::open(&options)?,
        };
        let mut generation = 1;
        if let Some((link, hello)) = parent {
            generation = hello.generation + 1;
            let started = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(hello.first_started));
            if let Some(started) = started {
                let _ = this.inherited.first_started.set(started);
            }
            *this.parent() = Some(link);
        }
        this.inherited.generation.store(generation, Relaxed);
        Ok(Self {
            options: Some(options),
            ..this
        })
    }

    fn parent(&self) -> std::sync::MutexGuard<'_, Option<child::Link>> {
        self.parent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flags; none with `--disable-hot-restart`.
    pub fn options(&self) -> Option<&Options> {
        self.options.as_ref()
    }

    /// What `/hot_restart_version` says.
    pub fn version(&self) -> String {
        match self.options {
            Some(_) => version_text(),
            None => "disabled".to_owned(),
        }
    }

    /// `--restart-epoch`, also when hot restart is disabled a number that operators read back.
    pub fn epoch(&self) -> u32 {
        self.options.as_ref().map_or(0, |o| o.epoch)
    }

    /// `server.hot_restart_generation`: how many processes there were, this one included; 0 when disabled.
    pub fn generation(&self) -> u64 {
        self.inherited.generation.load(Relaxed)
    }

    /// When the first process of the line started, if that was not this one.
    pub fn first_started(&self) -> Option<SystemTime> {
        self.inherited.first_started.get().copied()
    }

    /// Whether statistics come from a parent.
    pub fn imports_stats(&self) -> bool {
        self.options.as_ref().is_some_and(|o| !o.skip_parent_stats) && self.parent().is_some()
    }

    /// What the parent has now.
    pub fn parent_numbers(&self) -> ParentNumbers {
        let of = &self.inherited;
        ParentNumbers {
            connections: of.connections.load(Relaxed),
            allocated: of.allocated.load(Relaxed),
            heap: of.heap.load(Relaxed),
            physical: of.physical.load(Relaxed),
        }
    }

    fn set_parent_numbers(&self, numbers: ParentNumbers) {
        let of = &self.inherited;
        of.connections.store(numbers.connections, Relaxed);
        of.allocated.store(numbers.allocated, Relaxed);
        of.heap.store(numbers.heap, Relaxed);
        of.physical.store(numbers.physical, Relaxed);
    }

    /// Listen sockets of a listener by worker: the parent's where it has any for this address, else new ones.
    pub fn listen(
        &self,
        address: &Address,
        options: &ListenOptions,
        workers: usize,
        listener: &Arc<str>,
    ) -> Result<Vec<Vec<ListenSocket>>, ListenError> {
        let kind = match options.datagram {
            true => SocketKind::Datagram,
            false => SocketKind::Stream,
        };
        let inherited = self.take(kind, address);
        sockets::adopt(inherited, address, options, workers, listener)
    }

    /// The parent's sockets of an address, each once, in no particular order; none without a parent.
    pub fn take(&self, kind: SocketKind, address: &Address) -> Vec<OwnedFd> {
        // Port 0 means another port for every process, as in Envoy.
        let never = address.port() == Some(0) || matches!(address, Address::Internal { .. });
        if never || self.taken_over.load(Relaxed) {
            return Vec::new();
        }
        self.ask_parent(|parent| parent.take(kind, &address.to_string()))
            .unwrap_or_default()
    }

    /// The socket of the parent's admin, if it has this address: the parent's admin accepts no more.
    pub fn take_admin(&self, address: &Address) -> Option<ListenSocket> {
        let socket = self.take(SocketKind::Admin, address).pop()?;
        Some(match address {
            Address::Pipe(_) => ListenSocket::Unix(socket.into()),
            _ => ListenSocket::Tcp(socket.into()),
        })
    }

    /// Offers a socket to the next process, until the answer is dropped.
    pub fn share(&self, kind: SocketKind, socket: &impl AsFd) -> Option<SharedSocket> {
        self.options.as_ref()?;
        let socket: BorrowedFd<'_> = socket.as_fd();
        self.sockets.share(kind, socket)
    }

    /// Whether the admin accepts.
    pub fn admin(&self) -> &AdminGate {
        &self.admin
    }

    /// Asks the parent. One that does not answer as it should is given up: this process goes on without it.
    fn ask_parent<T>(&self, ask: impl FnOnce(&mut child::Link) -> io::Result<T>) -> Option<T> {
        let mut parent = self.parent();
        match ask(parent.as_mut()?) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(%error, "hot restart: the parent does not answer any more, going on without it");
                *parent = None;
                None
            }
        }
    }

    /// Starts to listen to the process that is to follow.
    pub fn serve(&self, server: &Arc<ServerContext>) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            parent::serve(listener, server);
        }
    }
}
