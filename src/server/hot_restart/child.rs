//! The child's side: what it asks of the process before it.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    HotRestart, HotRestartError, Options, ParentNumbers, SocketKind,
    protocol::{self, Ask, Hello, HelloReply, Reply, Request, StatsReply, TakeSockets},
};
use crate::server::{ServerContext, WorkerMsg};

/// How long the parent may take for one answer. It answers on a thread of its own, so even a busy one needs
/// milliseconds; one that is stopped must not stop its successor.
const ANSWER: Duration = Duration::from_secs(5);

/// The connection to the parent.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
}

impl Link {
    /// Finds the parent and introduces this process; none when there is no parent and that is fine.
    pub fn open(options: &Options) -> Result<Option<(Self, HelloReply)>, HotRestartError> {
        let opened = options.connect_parent().and_then(|stream| {
            same_user(&stream)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            let mut link = Self { stream };
            let hello = Ask::Hello(Hello {
                version: protocol::VERSION,
                epoch: options.epoch,
                pid: std::process::id(),
            });
            let (reply, _) = link.call_raw(hello)?;
            Ok((link, reply))
        });
        let (link, reply) = match opened {
            Ok(opened) => opened,
            Err(source) => {
                let error = HotRestartError::NoParent {
                    epoch: options.epoch.wrapping_sub(1),
                    name: options.name(options.epoch.wrapping_sub(1)),
                    source,
                };
                if !options.skip_on_no_parent {
                    return Err(error);
                }
                tracing::warn!("{error}: starting without it");
                return Ok(None);
            }
        };
        if !reply.refused.is_empty() {
            return Err(HotRestartError::Refused(reply.refused));
        }
        match reply.hello {
            Some(hello) if hello.version == protocol::VERSION => Ok(Some((link, hello))),
            hello => Err(HotRestartError::Refused(format!(
                "hot restart version mismatch: this process has {}, the parent {}",
                protocol::VERSION,
                hello.map_or(0, |h| h.version),
            ))),
        }
    }

    fn call_raw(&mut self, ask: Ask) -> io::Result<(Reply, Vec<OwnedFd>)> {
        protocol::send(&self.stream, &Request { ask: Some(ask) }, &[])?;
        self.receive()
    }

    fn receive(&mut self) -> io::Result<(Reply, Vec<OwnedFd>)> {
        match protocol::receive(&self.stream) {
            Ok(reply) => {
                reply.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the connection"))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer in {ANSWER:?}"),
            )),
            Err(e) => Err(e),
        }
    }

    /// One request, one answer; a refusal is an error.
    fn call(&mut self, ask: Ask) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let (reply, sockets) = self.call_raw(ask)?;
        match reply.refused.is_empty() {
            true => Ok((reply, sockets)),
            false => Err(io::Error::other(reply.refused)),
        }
    }

    /// The parent's sockets of an address.
    pub fn take(&mut self, kind: SocketKind, address: &str) -> io::Result<Vec<OwnedFd>> {
        if kind == SocketKind::Admin {
            return Ok(self.call(Ask::TakeAdmin(address.to_owned()))?.1);
        }
        let mut all = Vec::new();
        loop {
            let ask = TakeSockets {
                address: address.to_owned(),
                kind: kind as u32,
                from: u32::try_from(all.len()).unwrap_or(u32::MAX),
            };
            let (reply, sockets) = self.call(Ask::TakeSockets(ask))?;
            let none_came = sockets.is_empty();
            all.extend(sockets);
            if none_came || all.len() >= reply.sockets as usize {
                return Ok(all);
            }
        }
    }

    /// Statistics that changed, piece by piece.
    fn stats(&mut self, mut each: impl FnMut(StatsReply)) -> io::Result<()> {
        let (mut reply, _) = self.call(Ask::Stats(true))?;
        loop {
            each(reply.stats.unwrap_or_default());
            if !reply.more {
                return Ok(());
            }
            (reply, _) = self.receive()?;
        }
    }
}

/// Only a process of the same user is asked, and answered: whoever has the sockets has the traffic.
pub(super) fn same_user(stream: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    match peer.uid == rustix::process::geteuid() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("it belongs to user {}", peer.uid.as_raw()),
        )),
    }
}

impl HotRestart {
    /// Asks for the statistics of the parent and adds them to this process's. Blocks for as long as that takes.
    fn merge_stats(&self, server: &ServerContext) {
        let wanted = self.imports_stats();
        self.ask_parent(|parent| {
            if !wanted {
                return Ok(());
            }
            parent.stats(|reply| {
                for scope in reply.scopes {
                    server.stats.import(scope);
                }
                self.set_parent_numbers(ParentNumbers {
                    connections: reply.connections,
                    allocated: reply.allocated,
                    heap: reply.heap,
                    physical: reply.physical,
                });
            })
        });
        if self.parent().is_none() {
            self.forget_parent(server);
        }
    }

    /// The parent is gone: what it has open is nothing.
    fn forget_parent(&self, server: &ServerContext) {
        *self.parent() = None;
        self.set_parent_numbers(ParentNumbers::default());
        server.stats.end_import();
    }

    /// Tells the parent to drain once the workers accept, follows its statistics, and ends it after
    /// `--parent-shutdown-time-s`. Returns at once.
    pub fn take_over(&self, server: &Arc<ServerContext>, flush: Duration) {
        let Some(options) = self.options.clone() else { return };
        if self.parent().is_none() {
            return;
        }
        let server = server.clone();
        tokio::task::spawn_local(async move {
            workers_accept(&server).await;
            server.hot_restart.taken_over.store(true, Relaxed);
            let after = u64::try_from(options.parent_shutdown.as_millis()).unwrap_or(u64::MAX);
            let asked = on_thread(&server, move |this, _| this.ask_parent(|p| p.call(Ask::Drain(after)))).await;
            if asked.flatten().is_some() {
                tracing::info!("the parent drains");
            }
            let end = Instant::now().checked_add(options.parent_shutdown);
            loop {
                on_thread(&server, |this, server| this.merge_stats(server)).await;
                let left = end.map_or(flush, |end| end.saturating_duration_since(Instant::now()));
                if left.is_zero() || server.hot_restart.parent().is_none() {
                    break;
                }
                tokio::time::sleep(left.min(flush)).await;
            }
            server.hot_restart.end_parent(&server).await;
        });
    }

    /// Ends the parent, when there still is one.
    pub(super) async fn end_parent(&self, server: &Arc<ServerContext>) {
        on_thread(server, |this, server| {
            if this.parent().is_some() {
                tracing::info!("shutting down parent after drain");
                this.merge_stats(server);
                this.ask_parent(|parent| parent.call(Ask::Terminate(true)));
            }
            this.forget_parent(server);
        })
        .await;
    }
}

/// Asking blocks, so it is done where nothing else waits.
async fn on_thread<T: Send + 'static>(
    server: &Arc<ServerContext>,
    ask: impl FnOnce(&HotRestart, &ServerContext) -> T + Send + 'static,
) -> Option<T> {
    let server = server.clone();
    tokio::task::spawn_blocking(move || ask(&server.hot_restart, &server))
        .await
        .ok()
}

/// Waits until every worker has carried out what it was told so far: its listeners accept then.
async fn workers_accept(server: &Arc<ServerContext>) {
    let (done, mut all) = tokio::sync::mpsc::unbounded_channel::<()>();
    server.mailboxes.to_traffic(|_| {
        let done = done.clone();
        WorkerMsg::Run(Box::new(move |_| drop(done)))
    });
    drop(done);
    // Ends when the last of them is dropped.
    let _ = all.recv().await;
}
