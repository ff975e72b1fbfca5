//! Sockets that pass from one generation to the next.
//!
//! A parent knows the sockets that it accepts on: each accept loop keeps a [`SharedSocket`] for as long as it has the
//! socket. A child asks for the sockets of an address before it binds any. Both then accept from the same queues,
//! until the parent drains: the kernel keeps a socket, and what waits in its queue, for as long as one of them has it.

use std::{
    fs::File,
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use socket2::SockRef;

use crate::net::{Address, ListenError, ListenOptions, ListenSocket, bind};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SocketKind {
    /// A listener's, with connections.
    Stream = 1,
    /// A listener's, with datagrams.
    Datagram = 2,
    /// The admin's.
    Admin = 3,
}

impl SocketKind {
    /// The kind of a listener's socket.
    pub fn of(socket: &ListenSocket) -> Self {
        match socket {
            ListenSocket::Udp(_) => Self::Datagram,
            ListenSocket::Tcp(_) | ListenSocket::Unix(_) => Self::Stream,
        }
    }

    /// The kind of that number in a message.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        [Self::Stream, Self::Datagram, Self::Admin]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// The sockets of this process that its successor may have.
#[derive(Debug, Default)]
pub struct SharedSockets(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    id: u64,
    kind: SocketKind,
    address: String,
    /// Tells sockets apart: two descriptors of one socket have the same.
    inode: u64,
    /// A descriptor of its own: the owner of the socket may close its own whenever it likes.
    socket: OwnedFd,
}

/// A socket that may be passed on. It stays open for as long as this is kept: to be dropped with the socket.
#[derive(Debug)]
pub struct SharedSocket {
    id: u64,
    of: Arc<Mutex<Vec<Entry>>>,
}

impl Drop for SharedSocket {
    fn drop(&mut self) {
        lock(&self.of).retain(|entry| entry.id != self.id);
    }
}

fn lock(entries: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedSockets {
    /// Offers a socket to the next generation until the answer is dropped.
    pub fn share(&self, kind: SocketKind, socket: BorrowedFd<'_>) -> Option<SharedSocket> {
        let address = bound_to(socket)?;
        let socket = socket.try_clone_to_owned().ok()?;
        let inode = inode(&socket).ok()?;
        let mut entries = lock(&self.0);
        let id = entries.last().map_or(0, |last| last.id + 1);
        entries.push(Entry {
            id,
            kind,
            address,
            inode,
            socket,
        });
        drop(entries);
        Some(SharedSocket { id, of: self.0.clone() })
    }

    /// The sockets of an address, each once, and each with a descriptor of its own.
    pub fn of(&self, kind: SocketKind, address: &str) -> Vec<OwnedFd> {
        let mut seen = Vec::new();
        let mut found = Vec::new();
        for entry in lock(&self.0).iter() {
            if entry.kind != kind || entry.address != address || seen.contains(&entry.inode) {
                continue;
            }
            if let Ok(own) = entry.socket.try_clone() {
                seen.push(entry.inode);
                found.push(own);
            }
        }
        found
    }
}

/// The address of a socket, as both generations write it.
fn bound_to(socket: BorrowedFd<'_>) -> Option<String> {
    let address = SockRef::from(&socket).local_addr().ok()?;
    if let Some(ip) = address.as_socket() {
        return Some(ip.to_string());
    }
    if let Some(path) = address.as_pathname() {
        return Some(path.to_string_lossy().into_owned());
    }
    let name = address.as_abstract_namespace()?;
    Some(format!("@{}", String::from_utf8_lossy(name)))
}

fn inode(socket: &OwnedFd) -> io::Result<u64> {
    Ok(File::from(socket.try_clone()?).metadata()?.ino())
}

/// Sockets for an address, by worker: those of the parent first, then new ones.
///
/// Every socket of the parent finds a worker, also when there were more workers: connections wait in its queue. A
/// socket that was the only one of its address stays the only one, whatever `enable_reuse_port` says now.
pub fn adopt(
    inherited: Vec<OwnedFd>,
    address: &Address,
    options: &ListenOptions,
    workers: usize,
    listener: &Arc<str>,
) -> Result<Vec<Vec<ListenSocket>>, ListenError> {
    let workers = workers.max(1);
    if inherited.is_empty() {
        return Ok(bind(address, options, workers, listener)?
            .into_iter()
            .map(|s| vec![s])
            .collect());
    }
    let inherited: Vec<_> = inherited
        .into_iter()
        .map(|fd| as_socket(fd, address, options))
        .collect();
    let mut by_worker: Vec<Vec<ListenSocket>> = (0..workers).map(|_| Vec::new()).collect();
    let one_each = options.reuse_port && matches!(address, Address::Ip(_)) && inherited.iter().all(of_many);
    if !one_each {
        for sockets in &mut by_worker {
            for socket in &inherited {
                let own = socket.try_clone().map_err(|error| ListenError::Bind {
                    address: address.clone(),
                    error,
                })?;
                sockets.push(own);
            }
        }
        return Ok(by_worker);
    }
    let missing = workers.saturating_sub(inherited.len());
    let new = match missing {
        0 => Vec::new(),
        missing => bind(address, options, missing, listener)?,
    };
    for (index, socket) in inherited.into_iter().chain(new).enumerate() {
        if let Some(sockets) = by_worker.get_mut(index % workers) {
            sockets.push(socket);
        }
    }
    Ok(by_worker)
}

/// A socket as it was bound first; it gets the backlog of the configuration once the listener serves.
fn as_socket(fd: OwnedFd, address: &Address, options: &ListenOptions) -> ListenSocket {
    if options.datagram {
        return ListenSocket::Udp(fd.into());
    }
    match address {
        Address::Pipe(_) => ListenSocket::Unix(fd.into()),
        _ => ListenSocket::Tcp(fd.into()),
    }
}

/// Whether others may be bound to the same address.
fn of_many(socket: &ListenSocket) -> bool {
    SockRef::from(socket).reuse_port().unwrap_or(false)
}
