//! A session: the datagrams of one client, and those of its host.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    io,
    os::fd::AsFd,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use tokio::{
    io::{Interest, Ready},
    net::UdpSocket,
    task::AbortHandle,
    time::Instant,
};
use uuid::Uuid;
use xds_protos::google::protobuf::{Struct, Value, value::Kind};

use super::{
    cluster::{ClusterSessions, Key, Owner},
    config::UdpClusterStats,
    filter::{Shared, number},
    session_filter::{SessionFilter, pass_read, pass_write},
    upstream::Upstream,
};
use crate::{
    access_log::LogCx,
    http::{ConnectionInfo, Flag, StreamInfo, stream_info::ResponseFlags},
    net::Address,
    stats::Stats,
    upstream::{CountedConnection, Host, WorkerCluster},
};

/// What a socket is read for: datagrams, and errors that came back for those that were sent (a closed port).
const INCOMING: Interest = Interest::READABLE.add(Interest::ERROR);

/// How many batches are taken before others of the worker have their turn.
const BATCHES: usize = 8;

/// What is logged of a session.
#[derive(Default)]
struct Counts {
    rx_bytes: Cell<u64>,
    rx_datagrams: Cell<u64>,
    tx_bytes: Cell<u64>,
    tx_datagrams: Cell<u64>,
    tx_errors: Cell<u64>,
}

/// Counted and logged when it is dropped, however it ends.
pub(super) struct Session {
    key: Key,
    owner: Owner,
    shared: Rc<Shared>,
    cluster: Rc<WorkerCluster>,
    stats: Stats<UdpClusterStats>,
    id: u64,
    started: (std::time::Instant, SystemTime),
    counts: Counts,
    flags: Cell<ResponseFlags>,
    filters: RefCell<Vec<Box<dyn SessionFilter>>>,
    upstream: RefCell<Option<Rc<Upstream>>>,
    /// When a datagram last went either way.
    active: Cell<Instant>,
    task: RefCell<Option<AbortHandle>>,
    counted: RefCell<Option<CountedConnection>>,
}

impl Session {
    pub(super) fn new(key: Key, of: &Rc<ClusterSessions>) -> Rc<Self> {
        let config = &of.shared.config;
        let stats = config.stats.local();
        stats.downstream_sess_total.inc();
        stats.downstream_sess_active.inc();
        Rc::new(Self {
            key,
            owner: Rc::downgrade(of),
            shared: of.shared.clone(),
            cluster: of.cluster.clone(),
            stats: of.stats.clone(),
            id: of.shared.worker.server.next_connection_id(),
            started: (std::time::Instant::now(), SystemTime::now()),
            counts: Counts::default(),
            flags: Cell::default(),
            filters: RefCell::new(config.session_filters.iter().map(|f| f.create()).collect()),
            upstream: RefCell::default(),
            active: Cell::new(Instant::now()),
            task: RefCell::default(),
            counted: RefCell::default(),
        })
    }

    pub(super) fn flag(&self, flag: Flag) {
        let mut flags = self.flags.get();
        flags.set(flag);
        self.flags.set(flags);
    }

    /// Keeps its place among the cluster's connections.
    pub(super) fn count(&self, counted: CountedConnection) {
        *self.counted.borrow_mut() = Some(counted);
    }

    /// The host, once there is one.
    pub(super) fn host(&self) -> Option<Arc<Host>> {
        self.upstream.borrow().as_ref().map(|u| u.host.clone())
    }

    /// Asks the filters, chooses a host unless there is one already, and opens its socket. False: it cannot begin.
    pub(super) fn begin(self: &Rc<Self>, host: Option<Arc<Host>>, of: &ClusterSessions) -> bool {
        let goes_on = self.filters.borrow_mut().iter_mut().all(|f| f.on_new_session());
        if goes_on {
            let Some(host) = host.or_else(|| of.choose(self.key.peer)) else {
                return false;
            };
            match Upstream::open(host, &self.shared.config) {
                Ok(upstream) => *self.upstream.borrow_mut() = Some(Rc::new(upstream)),
                Err(error) => {
                    tracing::warn!(cluster = %self.cluster.info.name, %error, "no socket for a UDP session");
                    return false;
                }
            }
        }
        let socket = self.upstream.borrow().as_ref().map(|u| u.socket.clone());
        let (idle, flush) = (self.shared.config.idle_timeout, self.shared.config.flush_interval);
        let task = tokio::task::spawn_local(run(Rc::downgrade(self), socket, idle, flush));
        *self.task.borrow_mut() = Some(task.abort_handle());
        true
    }

    /// A datagram of the client.
    pub(super) fn on_data(&self, bytes: &[u8]) {
        let stats = self.shared.config.stats.local();
        stats.downstream_sess_rx_bytes.add(bytes.len() as u64);
        stats.downstream_sess_rx_datagrams.inc();
        add(&self.counts.rx_bytes, bytes.len() as u64);
        add(&self.counts.rx_datagrams, 1);
        self.active.set(Instant::now());
        let upstream = self.upstream.borrow().clone();
        pass_read(&mut self.filters.borrow_mut(), bytes, &mut |bytes| {
            if let Some(upstream) = &upstream {
                self.send_upstream(upstream, bytes);
            }
        });
    }

    fn send_upstream(&self, upstream: &Upstream, bytes: &[u8]) {
        let client = self.shared.config.original_source.then(|| self.key.peer.ip());
        match upstream.send(bytes, client) {
            Ok(()) => {
                self.stats.local().sess_tx_datagrams.inc();
                let stats = self.cluster.info.stats.local();
                stats.upstream_cx_tx_bytes_total.add(bytes.len() as u64);
            }
            Err(error) => {
                tracing::debug!(host = %upstream.host.address, %error, "a datagram was not sent");
                self.stats.local().sess_tx_errors.inc();
            }
        }
    }

    /// Datagrams of the host wait, or an error does.
    fn read(&self, socket: &UdpSocket, ready: Ready) {
        self.active.set(Instant::now());
        if ready.is_error() {
            self.take(socket, Interest::ERROR);
        }
        if ready.is_readable() {
            self.take(socket, Interest::READABLE);
        }
    }

    /// Takes some batches, or what waits; an error is taken as a datagram is.
    fn take(&self, socket: &UdpSocket, ready: Interest) {
        let mut reader = self.shared.reader.borrow_mut();
        for _ in 0..BATCHES {
            let read = socket.try_io(ready, || {
                let batch = reader.receive(socket.as_fd(), |datagram| self.on_upstream_data(datagram.bytes))?;
                self.stats.local().sess_rx_datagrams_dropped.add(batch.truncated);
                match batch.drained {
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(()),
                }
            });
            match read {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.stats.local().sess_rx_errors.inc(),
            }
        }
    }

    fn on_upstream_data(&self, bytes: &[u8]) {
        self.stats.local().sess_rx_datagrams.inc();
        let stats = self.cluster.info.stats.local();
        stats.upstream_cx_rx_bytes_total.add(bytes.len() as u64);
        pass_write(&mut self.filters.borrow_mut(), bytes, &mut |bytes| {
            self.send_downstream(bytes)
        });
    }

    fn send_downstream(&self, bytes: &[u8]) {
        let stats = self.shared.config.stats.local();
        match self.shared.downstream.send(bytes, self.key.local, self.key.peer) {
            Ok(()) => {
                stats.downstream_sess_tx_bytes.add(bytes.len() as u64);
                stats.downstream_sess_tx_datagrams.inc();
                add(&self.counts.tx_bytes, bytes.len() as u64);
                add(&self.counts.tx_datagrams, 1);
            }
            Err(error) => {
                tracing::debug!(client = %self.key.peer, %error, "a datagram was not sent");
                stats.downstream_sess_tx_errors.inc();
                add(&self.counts.tx_errors, 1);
            }
        }
    }

    fn idle(&self) {
        self.shared.config.stats.local().idle_timeout.inc();
        if let Some(owner) = self.owner.upgrade() {
            owner.remove(&self.key);
        }
    }

    /// Writes a line of this type (`%ACCESS_LOG_TYPE%`).
    fn log(&self, kind: &'static str) {
        let log = &self.shared.config.access_log;
        if log.is_empty() {
            return;
        }
        let mut connection = ConnectionInfo::of_nobody();
        connection.id = self.id;
        connection.local_address = Address::Ip(self.key.local);
        connection.remote_address = Address::Ip(self.key.peer);
        connection.direct_remote_address = Address::Ip(self.key.peer);
        connection.start_time = self.started.1;
        let mut info = StreamInfo::new(Rc::new(connection), None);
        (info.start, info.start_time) = self.started;
        info.end = Some(std::time::Instant::now());
        info.flags = self.flags.get();
        info.access_log_type = kind;
        info.request_id = HeaderValue::from_str(&Uuid::new_v4().to_string()).ok();
        info.progress.bytes_received.set(self.counts.rx_bytes.get());
        info.progress.bytes_sent.set(self.counts.tx_bytes.get());
        if let Some(upstream) = &*self.upstream.borrow() {
            info.upstream.host = Some(upstream.host.clone());
            info.upstream.connected = true;
            info.upstream.local_address = upstream.local_address();
            info.upstream.remote_address = Some(upstream.remote_address());
        }
        let name = Value {
            kind: Some(Kind::StringValue(self.cluster.info.name.to_string())),
        };
        let fields = [
            ("cluster_name", name),
            ("bytes_sent", number(self.counts.tx_bytes.get())),
            ("bytes_received", number(self.counts.rx_bytes.get())),
            ("errors_sent", number(self.counts.tx_errors.get())),
            ("datagrams_sent", number(self.counts.tx_datagrams.get())),
            ("datagrams_received", number(self.counts.rx_datagrams.get())),
        ];
        let fields = fields
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect();
        info.metadata.insert("udp.proxy.session".to_owned(), Struct { fields });
        log.log(&LogCx {
            request: None,
            response: None,
            info: &info,
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.shared.config.stats.local().downstream_sess_active.dec();
        self.log("UdpSessionEnd");
    }
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

/// Reads the host's datagrams, ends the session when it is idle, and writes a line now and then.
async fn run(session: Weak<Session>, socket: Option<Rc<UdpSocket>>, idle: Duration, flush: Option<Duration>) {
    let begun = Instant::now();
    // Armed once; datagrams only note that they came.
    let mut timer = pin!(tokio::time::sleep_until(begun + idle));
    let mut flush_at = flush.map(|every| begun + every);
    loop {
        let readable = async {
            match &socket {
                // A socket that cannot be waited for says so when it is read.
                Some(socket) => socket.ready(INCOMING).await.unwrap_or(Ready::ALL),
                None => pending().await,
            }
        };
        let flushed = async {
            match flush_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            ready = readable => {
                let (Some(session), Some(socket)) = (session.upgrade(), &socket) else { return };
                session.read(socket, ready);
            }
            () = &mut timer => {
                let Some(session) = session.upgrade() else { return };
                let until = session.active.get() + idle;
                if until <= Instant::now() {
                    return session.idle();
                }
                timer.as_mut().reset(until);
            }
            () = flushed => {
                let Some(session) = session.upgrade() else { return };
                session.log("UdpPeriodic");
                flush_at = flush.map(|every| Instant::now() + every);
            }
        }
        tokio::task::yield_now().await;
    }
}
