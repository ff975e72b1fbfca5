//! The pool itself: ready connections, the queue, and the rules of when a connection is opened.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use http::{HeaderValue, uri::Authority};

use super::{
    Lease,
    capacity::Load,
    conn::{Conn, Sender},
    h1, h2,
    key::PoolKey,
    open::OpenGuard,
    waiter::{Waiter, Waiting},
};
use crate::{
    server::{InternalListeners, ServerContext, overload::Point},
    upstream::{ClusterInfo, ConnectFailure, Host, ResourceManager, WorkerCluster, config::HttpProtocol},
};

struct H2Entry {
    sender: h2::Sender,
    conn: Rc<Conn>,
}

#[derive(Default)]
struct State {
    /// Ready HTTP/1.1 connections; the last is the one used last.
    idle: Vec<(h1::Sender, Rc<Conn>)>,
    /// HTTP/2 connections, ready or full.
    h2: Vec<H2Entry>,
    pending: VecDeque<Rc<Waiter>>,
    /// Connections being opened.
    connecting: usize,
    /// Connections open, ready or not.
    open: usize,
}

/// Connections to one host for one priority, protocol and set of transport socket options.
pub struct Pool {
    pub(super) cluster: Arc<ClusterInfo>,
    /// Where the connections go.
    pub host: Arc<Host>,
    pub(super) server: Arc<ServerContext>,
    pub(super) internal: Rc<InternalListeners>,
    pub(super) key: PoolKey,
    /// Where it is listed as long as it has connections.
    owner: Weak<WorkerCluster>,
    state: RefCell<State>,
    /// Requests in flight.
    active: Cell<usize>,
    draining: Cell<bool>,
    /// Whether it counts against `max_connection_pools`.
    counted: Cell<bool>,
    /// The last authority as a URI part: most requests to a host name the same one.
    authority: RefCell<Option<(HeaderValue, Authority)>>,
}

impl Pool {
    /// An empty pool; none when `max_connection_pools` is reached.
    pub fn new(
        cluster: Arc<ClusterInfo>,
        host: Arc<Host>,
        server: Arc<ServerContext>,
        internal: Rc<InternalListeners>,
        key: PoolKey,
        owner: Weak<WorkerCluster>,
    ) -> Option<Rc<Self>> {
        let pools = &cluster.resources(key.priority).connection_pools;
        if !pools.can_create() {
            cluster.stats.local().upstream_cx_pool_overflow.inc();
            return None;
        }
        pools.inc();
        Some(Rc::new(Self {
            cluster,
            host,
            server,
            internal,
            key,
            owner,
            state: RefCell::default(),
            active: Cell::new(0),
            draining: Cell::new(false),
            counted: Cell::new(true),
            authority: RefCell::default(),
        }))
    }

    /// Whether this is the pool for such requests.
    #[inline]
    pub fn serves(&self, key: &PoolKey) -> bool {
        self.key == *key
    }

    /// Whether no request is in flight or waits.
    pub fn is_idle(&self) -> bool {
        self.active.get() == 0 && self.state.borrow().pending.is_empty()
    }

    /// It is not among its cluster's pools any more: it closes as its requests end, and makes room for another.
    pub fn retire_pool(&self) {
        self.drain();
        self.uncount();
    }

    fn uncount(&self) {
        if self.counted.replace(false) {
            self.breakers().connection_pools.dec();
        }
    }

    /// Closes idle connections; busy ones close when their requests end.
    pub fn drain(&self) {
        self.draining.set(true);
        let (idle, h2) = {
            let mut state = self.state.borrow_mut();
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.h2))
        };
        for conn in idle.iter().map(|(_, c)| c).chain(h2.iter().map(|e| &e.conn)) {
            conn.closed_locally.set(true);
        }
        for (client, _) in &idle {
            client.end();
        }
    }

    #[inline]
    pub(super) fn breakers(&self) -> &Arc<ResourceManager> {
        self.cluster.resources(self.key.priority)
    }

    /// A connection for one request.
    pub(super) async fn acquire(self: &Rc<Self>) -> Result<Lease, ConnectFailure> {
        if let Some((sender, conn)) = self.take_ready() {
            let lease = self.attach(sender, conn);
            if self.cluster.preconnect.per_upstream > 1.0 {
                self.connect_as_needed();
            }
            return lease;
        }
        let stats = self.cluster.stats.local();
        let breakers = self.breakers();
        if !breakers.pending_requests.can_create() {
            stats.upstream_rq_pending_overflow.inc();
            return Err(ConnectFailure::Overflow);
        }
        breakers.pending_requests.inc();
        stats.upstream_rq_pending_total.inc();
        stats.upstream_rq_pending_active.inc();
        self.host.stats.rq_pending_active.fetch_add(1, Relaxed);
        let waiter = Rc::new(Waiter::default());
        self.state.borrow_mut().pending.push_back(waiter.clone());
        let waiting = Waiting {
            pool: self.clone(),
            waiter,
        };
        if let Some(overload) = &self.cluster.overload
            && self.load().exceeds(1.0, 0)
            && overload.sheds(Point::PoolNewConnection)
        {
            // Dropped, who waits counts as cancelled.
            return Err(ConnectFailure::Overflow);
        }
        self.connect_as_needed();
        waiting.await
    }

    /// A ready connection, if there is one.
    fn take_ready(&self) -> Option<(Sender, Rc<Conn>)> {
        let mut state = self.state.borrow_mut();
        while let Some((sender, conn)) = state.idle.pop() {
            // The task of a closed connection may not have run yet.
            if !sender.is_ended() {
                return Some((Sender::H1(sender), conn));
            }
        }
        state.h2.retain(|e| !e.sender.is_closed());
        let limit = self.cluster.http.http2.max_concurrent_streams as usize;
        let entry = state
            .h2
            .iter()
            .find(|e| (e.conn.active.get() as usize) < e.conn.max_streams.get().min(limit))?;
        Some((Sender::H2(entry.sender.clone()), entry.conn.clone()))
    }

    /// Counts a request onto a connection, unless there are too many requests.
    fn attach(self: &Rc<Self>, sender: Sender, conn: Rc<Conn>) -> Result<Lease, ConnectFailure> {
        let stats = self.cluster.stats.local();
        let breakers = self.breakers();
        if !breakers.requests.can_create() {
            stats.upstream_rq_active_overflow.inc();
            if let Sender::H1(sender) = sender {
                self.state.borrow_mut().idle.push((sender, conn));
            }
            return Err(ConnectFailure::TooManyRequests);
        }
        breakers.request_starts();
        stats.upstream_rq_total.inc();
        stats.upstream_rq_active.inc();
        self.host.stats.rq_total.fetch_add(1, Relaxed);
        self.host.stats.rq_active.fetch_add(1, Relaxed);
        self.active.set(self.active.get() + 1);
        conn.active.set(conn.active.get() + 1);
        let count = conn.requests.get() + 1;
        conn.requests.set(count);
        if self.cluster.http.max_requests_per_connection == Some(count) {
            stats.upstream_cx_max_requests.inc();
            self.retire(&conn);
        }
        Ok(Lease::new(self.clone(), sender, conn))
    }

    /// No further requests on this connection; it closes when those in flight are over.
    pub(super) fn retire(&self, conn: &Rc<Conn>) {
        conn.retired.set(true);
        conn.closed_locally.set(true);
        self.forget(conn);
    }

    pub(super) fn forget(&self, conn: &Rc<Conn>) {
        let mut state = self.state.borrow_mut();
        // Dropping a sender runs no code of ours, so the borrow is not in its way.
        state.idle.retain(|(_, c)| !Rc::ptr_eq(c, conn));
        state.h2.retain(|e| !Rc::ptr_eq(&e.conn, conn));
    }

    /// A request is over: gives its counts back.
    pub(super) fn detach(&self, conn: &Conn) {
        self.breakers().request_ends();
        self.cluster.stats.local().upstream_rq_active.dec();
        self.host.stats.rq_active.fetch_sub(1, Relaxed);
        self.active.set(self.active.get().saturating_sub(1));
        conn.active.set(conn.active.get().saturating_sub(1));
        if conn.active.get() == 0 {
            conn.idle_since.set(Instant::now());
        }
    }

    /// An HTTP/1.1 connection is free again.
    pub(super) fn put_back(self: &Rc<Self>, sender: h1::Sender, conn: Rc<Conn>) {
        if conn.retired.get() || self.draining.get() {
            conn.closed_locally.set(true);
            sender.end();
            return;
        }
        self.state.borrow_mut().idle.push((sender, conn));
        self.serve_pending();
    }

    /// A stream of an HTTP/2 connection is free again.
    pub(super) fn stream_ended(self: &Rc<Self>, conn: &Rc<Conn>) {
        if self.draining.get() && conn.active.get() == 0 {
            self.retire(conn);
        }
        self.serve_pending();
    }

    /// Gives ready connections to those who wait.
    pub(super) fn serve_pending(self: &Rc<Self>) {
        while !self.state.borrow().pending.is_empty() {
            let Some((sender, conn)) = self.take_ready() else {
                return self.connect_as_needed();
            };
            let Some(waiter) = self.next_pending() else {
                return;
            };
            waiter.resolve(self.attach(sender, conn));
        }
    }

    fn next_pending(&self) -> Option<Rc<Waiter>> {
        let waiter = self.state.borrow_mut().pending.pop_front()?;
        self.left_queue();
        Some(waiter)
    }

    fn left_queue(&self) {
        self.breakers().pending_requests.dec();
        self.cluster.stats.local().upstream_rq_pending_active.dec();
        self.host.stats.rq_pending_active.fetch_sub(1, Relaxed);
    }

    /// A waiting request was dropped, perhaps after it had been served.
    pub(super) fn cancel(&self, waiter: &Rc<Waiter>) {
        let mut state = self.state.borrow_mut();
        let Some(at) = state.pending.iter().position(|w| Rc::ptr_eq(w, waiter)) else {
            return;
        };
        state.pending.remove(at);
        drop(state);
        self.left_queue();
        self.cluster.stats.local().upstream_rq_cancelled.inc();
    }

    /// What the pool is provisioned for, and for whom.
    pub fn load(&self) -> Load {
        let state = self.state.borrow();
        let limit = self.h2_streams();
        let opening = match self.key.protocol {
            HttpProtocol::Http2 => limit.min(self.requests_of_one()),
            // Of an upstream whose protocol is not settled, no more than one stream is expected.
            _ => 1,
        };
        let open = state.h2.iter().fold(state.idle.len(), |sum, entry| {
            let conn = &entry.conn;
            let streams = conn.max_streams.get().min(limit);
            let free = streams.saturating_sub(conn.active.get() as usize);
            let requests = self.requests_of_one().saturating_sub(conn.requests.get() as usize);
            sum.saturating_add(free.min(requests))
        });
        Load {
            pending: state.pending.len(),
            active: self.active.get(),
            capacity: state.connecting.saturating_mul(opening).saturating_add(open),
        }
    }

    /// How many requests one connection may carry.
    fn requests_of_one(&self) -> usize {
        let limit = self.cluster.http.max_requests_per_connection;
        limit.map_or(usize::MAX, |n| n as usize)
    }

    /// Whether no connection is open or being opened.
    pub(super) fn has_none(&self) -> bool {
        let state = self.state.borrow();
        state.open + state.connecting == 0
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Opens one connection.
    pub(super) fn start_opening(self: &Rc<Self>) {
        self.state.borrow_mut().connecting += 1;
        let opening = OpenGuard::new(self.clone());
        tokio::task::spawn_local(opening.run());
    }

    fn h2_streams(&self) -> usize {
        self.cluster.http.http2.max_concurrent_streams.max(1) as usize
    }

    pub(super) fn alpn(&self) -> &'static [&'static str] {
        match self.key.protocol {
            HttpProtocol::Http2 => &["h2"],
            HttpProtocol::Auto => &["h2", "http/1.1"],
            HttpProtocol::Http1 | HttpProtocol::Downstream => &["http/1.1"],
        }
    }

    /// A connection is not being opened any more.
    pub(super) fn stopped_connecting(&self) {
        self.state.borrow_mut().connecting -= 1;
    }

    /// An open connection is gone.
    pub(super) fn closed(&self, conn: &Rc<Conn>) {
        self.state.borrow_mut().open -= 1;
        self.forget(conn);
    }

    /// Something ended: whoever waits may need a connection in place of it, and without connections the pool goes,
    /// so that identities that do not come back leave nothing behind.
    pub(super) fn settle(self: &Rc<Self>) {
        if !self.state.borrow().pending.is_empty() {
            self.connect_as_needed();
        }
        if self.has_none()
            && self.is_idle()
            && let Some(owner) = self.owner.upgrade()
        {
            owner.forget_pool(self);
        }
    }

    /// The opening of a connection failed: all who wait fail with it, as in Envoy, so that their retries can go
    /// elsewhere.
    pub(super) fn connect_failed(self: &Rc<Self>, failure: &ConnectFailure) {
        let waiting = std::mem::take(&mut self.state.borrow_mut().pending);
        for waiter in waiting {
            self.left_queue();
            self.cluster.stats.local().upstream_rq_pending_failure_eject.inc();
            waiter.resolve(Err(failure.clone()));
        }
    }

    pub(super) fn connected(self: &Rc<Self>, sender: Sender, conn: &Rc<Conn>) {
        {
            let mut state = self.state.borrow_mut();
            state.connecting -= 1;
            state.open += 1;
            match sender {
                Sender::H1(sender) => state.idle.push((sender, conn.clone())),
                Sender::H2(sender) => state.h2.push(H2Entry {
                    sender,
                    conn: conn.clone(),
                }),
            }
        }
        self.serve_pending();
        // What was opened may serve fewer than was assumed.
        if !self.state.borrow().pending.is_empty() {
            self.connect_as_needed();
        }
        if self.draining.get() && conn.active.get() == 0 {
            self.retire(conn);
        }
    }

    /// The authority as a URI part; none when it is none.
    pub(super) fn authority(&self, value: &HeaderValue) -> Option<Authority> {
        let mut cache = self.authority.borrow_mut();
        if let Some((cached, authority)) = &*cache
            && cached == value
        {
            return Some(authority.clone());
        }
        let authority = Authority::try_from(value.as_bytes()).ok()?;
        *cache = Some((value.clone(), authority.clone()));
        Some(authority)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.uncount();
    }
}
