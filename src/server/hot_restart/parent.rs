//! The parent's side: answers the process that is to follow, on threads of its own, so that neither traffic nor
//! configuration waits for it and a busy parent still answers at once.

use std::{
    io,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, SystemTime},
};

use super::{
    AdminState, SocketKind,
    child::same_user,
    protocol::{self, Ask, Hello, HelloReply, MAX_DESCRIPTORS, Reply, Request, StatsReply, TakeSockets},
};
use crate::{
    server::{ServerContext, State, memory},
    stats::{Exporter, ScopeValues},
};

/// How long a child may take to read an answer or to finish a request it began.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time that a drained process gives its successor to end it, after which it ends by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Connections answered at once: one child, and some that only look whether anybody is there.
const MAX_CONNECTIONS: usize = 8;

/// About how many bytes of statistics go into one frame.
const PIECE: usize = 1 << 20;

/// Answers until the process ends.
pub fn serve(listener: UnixListener, server: &Arc<ServerContext>) {
    let server = server.clone();
    let started = thread::Builder::new().name("hot_restart".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // Each connection's thread has one.
                Ok(_) if Arc::strong_count(&server.hot_restart.turns) > MAX_CONNECTIONS => {}
                Ok(stream) => accept(stream, &server),
                Err(error) => {
                    tracing::warn!(%error, "hot restart: accept failed");
                    #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    });
    if let Err(error) = started {
        tracing::error!(%error, "hot restart: no process will be able to follow this one");
    }
}

fn accept(stream: UnixStream, server: &Arc<ServerContext>) {
    let (turn, server) = (server.hot_restart.turns.clone(), server.clone());
    let started = thread::Builder::new().name("hot_restart".into()).spawn(move || {
        let _turn = turn;
        let mut child = Child::new(&server);
        if let Err(error) = child.serve(&stream) {
            tracing::warn!(%error, "hot restart: the connection of a child ended");
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "hot restart: a child is not answered");
    }
}

/// One connection.
struct Child<'a> {
    server: &'a Arc<ServerContext>,
    /// Set once it said who it is and may follow.
    pid: Option<u32>,
    exporter: Exporter,
}

impl<'a> Child<'a> {
    fn new(server: &'a Arc<ServerContext>) -> Self {
        Self {
            server,
            pid: None,
            exporter: Exporter::default(),
        }
    }

    fn serve(&mut self, stream: &UnixStream) -> io::Result<()> {
        same_user(stream)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // The first message comes at once; between later ones the child serves.
        stream.set_read_timeout(Some(PATIENCE))?;
        while let Some((request, _)) = protocol::receive::<Request>(stream)? {
            stream.set_read_timeout(None)?;
            let Some(ask) = request.ask else {
                return refuse(stream, "unknown request");
            };
            match (ask, self.pid) {
                (Ask::Hello(hello), None) => match self.admit(&hello) {
                    Ok(reply) => protocol::send(stream, &reply, &[])?,
                    Err(why) => return refuse(stream, &why),
                },
                (_, None) | (Ask::Hello(_), Some(_)) => return refuse(stream, "a hello comes first, and once"),
                (Ask::TakeSockets(ask), _) => self.pass(stream, &ask)?,
                (Ask::TakeAdmin(address), _) => self.pass_admin(stream, &address)?,
                (Ask::Stats(_), _) => self.send_stats(stream)?,
                (Ask::Drain(end), _) => {
                    self.drain(Duration::from_millis(end));
                    protocol::send(stream, &Reply::default(), &[])?;
                }
                (Ask::Terminate(_), _) => {
                    tracing::info!("shutting down due to child request");
                    let answered = protocol::send(stream, &Reply::default(), &[]);
                    self.server.stop.notify_one();
                    return answered;
                }
            }
        }
        Ok(())
    }

    /// Whether this child may follow, and who it follows.
    fn admit(&mut self, hello: &Hello) -> Result<Reply, String> {
        let this = &self.server.hot_restart;
        if hello.version != protocol::VERSION {
            return Err(format!(
                "hot restart version mismatch: the parent has {}, the child {}",
                protocol::VERSION,
                hello.version
            ));
        }
        if hello.epoch != this.epoch().wrapping_add(1) {
            return Err(format!("epoch {} cannot follow epoch {}", hello.epoch, this.epoch()));
        }
        if this.drained.load(Relaxed) {
            return Err("this process has a successor already, and ends".to_owned());
        }
        if matches!(self.server.state(), State::PreInitializing | State::Initializing) {
            return Err("previous envoy process is still initializing".to_owned());
        }
        let pid = u64::from(hello.pid);
        if let Err(other) = this.successor.compare_exchange(0, pid, Relaxed, Relaxed) {
            return Err(format!("process {other} is about to follow already"));
        }
        self.pid = Some(hello.pid);
        tracing::info!(pid = hello.pid, epoch = hello.epoch, "hot restart: a child starts");
        let first = this.first_started().unwrap_or(self.server.started.0);
        let first = first.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Reply {
            hello: Some(HelloReply {
                version: protocol::VERSION,
                first_started: u64::try_from(first.as_millis()).unwrap_or_default(),
                generation: this.generation(),
            }),
            ..Reply::default()
        })
    }

    fn pass(&self, stream: &UnixStream, ask: &TakeSockets) -> io::Result<()> {
        let Some(kind) = SocketKind::from_number(ask.kind) else {
            return refuse(stream, "unknown kind of socket");
        };
        let sockets = self.server.hot_restart.sockets.of(kind, &ask.address);
        let reply = Reply {
            sockets: u32::try_from(sockets.len()).unwrap_or(u32::MAX),
            ..Reply::default()
        };
        let rest = sockets.iter().skip(ask.from as usize).take(MAX_DESCRIPTORS);
        let rest: Vec<_> = rest.map(AsFd::as_fd).collect();
        protocol::send(stream, &reply, &rest)
    }

    fn pass_admin(&self, stream: &UnixStream, address: &str) -> io::Result<()> {
        let this = &self.server.hot_restart;
        let sockets = this.sockets.of(SocketKind::Admin, address);
        if !sockets.is_empty() {
            tracing::warn!("shutting down admin due to child startup");
            this.admin.set(AdminState::Paused);
        }
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        protocol::send(stream, &Reply::default(), &sockets)
    }

    fn send_stats(&mut self, stream: &UnixStream) -> io::Result<()> {
        let memory = memory();
        let piece = |scopes: Vec<ScopeValues>, more| Reply {
            stats: Some(StatsReply {
                scopes,
                connections: self.server.connections.load(Relaxed),
                allocated: memory.allocated,
                heap: memory.heap,
                physical: memory.physical,
            }),
            more,
            ..Reply::default()
        };
        let (mut scopes, mut size) = (Vec::new(), 0);
        let mut sent = Ok(());
        self.exporter.changed(&self.server.stats, |scope, bytes| {
            scopes.push(scope);
            size += bytes;
            if size >= PIECE && sent.is_ok() {
                size = 0;
                sent = protocol::send(stream, &piece(std::mem::take(&mut scopes), true), &[]);
            }
        });
        sent?;
        protocol::send(stream, &piece(scopes, false), &[])
    }

    /// The child serves: stops accepting and lets connections go.
    fn drain(&self, end: Duration) {
        let this = &self.server.hot_restart;
        if this.drained.swap(true, Relaxed) {
            return;
        }
        this.admin.set(AdminState::Closed);
        let server = self.server.clone();
        server.clone().mailboxes.run_on_control(move |_| {
            tracing::info!("closing and draining listeners");
            server.listeners.stop(false, &server);
            server.listeners.drain(false);
            tokio::task::spawn_local(async move {
                // Three generations at once are enough: with a child that serves, the parent's parent ends.
                server.hot_restart.end_parent(&server).await;
                tokio::time::sleep(end.saturating_add(GRACE)).await;
                tracing::warn!("the successor did not end this process in time");
                server.stop.notify_one();
            });
        });
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        let this = &self.server.hot_restart;
        if self.pid.is_none() {
            return;
        }
        this.successor.store(0, Relaxed);
        if !this.drained.load(Relaxed) {
            tracing::warn!("hot restart: the child is gone before it served, going on");
            this.admin.set(AdminState::Open);
        }
    }
}

fn refuse(stream: &UnixStream, why: &str) -> io::Result<()> {
    let reply = Reply {
        refused: why.to_owned(),
        ..Reply::default()
    };
    protocol::send(stream, &reply, &[])?;
    Err(io::Error::other(format!("refused: {why}")))
}
