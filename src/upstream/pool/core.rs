//! The pool itself: ready connections, the queue, and the rules of when a connection is opened.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use http::{HeaderValue, uri::Authority};

use super::{
    Lease, TransportOptions,
    conn::{Conn, Sender},
    h1, h2,
    open::OpenGuard,
    waiter::{Waiter, Waiting},
};
use crate::{
    server::ServerContext,
    upstream::{ClusterInfo, ConnectFailure, Host, ResourceManager, ResourcePriority, config::HttpProtocol},
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
    priority: ResourcePriority,
    pub(super) protocol: HttpProtocol,
    pub(super) transport: Option<Arc<TransportOptions>>,
    state: RefCell<State>,
    draining: Cell<bool>,
    /// The last authority as a URI part: most requests to a host name the same one.
    authority: RefCell<Option<(HeaderValue, Authority)>>,
}

impl Pool {
    /// An empty pool; none when `max_connection_pools` is reached.
    pub fn new(
        cluster: Arc<ClusterInfo>,
        host: Arc<Host>,
        server: Arc<ServerContext>,
        priority: ResourcePriority,
        protocol: HttpProtocol,
        transport: Option<Arc<TransportOptions>>,
    ) -> Option<Rc<Self>> {
        let pools = &cluster.resources(priority).connection_pools;
        if !pools.can_create() {
            cluster.stats.local().upstream_cx_pool_overflow.inc();
            return None;
        }
        pools.inc();
        Some(Rc::new(Self {
            cluster,
            host,
            server,
            priority,
            protocol,
            transport,
            state: RefCell::default(),
            draining: Cell::new(false),
            authority: RefCell::default(),
        }))
    }

    /// Whether this is the pool for such requests.
    pub fn serves(
        &self,
        priority: ResourcePriority,
        protocol: HttpProtocol,
        transport: Option<&Arc<TransportOptions>>,
    ) -> bool {
        self.priority == priority
            && self.protocol == protocol
            && match (&self.transport, transport) {
                (None, None) => true,
                (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs) || ours == theirs,
                _ => false,
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
        self.cluster.resources(self.priority)
    }

    /// A connection for one request.
    pub(super) async fn acquire(self: &Rc<Self>) -> Result<Lease, ConnectFailure> {
        if let Some((sender, conn)) = self.take_ready() {
            return self.attach(sender, conn);
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
        let requests = &self.breakers().requests;
        if !requests.can_create() {
            stats.upstream_rq_active_overflow.inc();
            if let Sender::H1(sender) = sender {
                self.state.borrow_mut().idle.push((sender, conn));
            }
            return Err(ConnectFailure::TooManyRequests);
        }
        requests.inc();
        stats.upstream_rq_total.inc();
        stats.upstream_rq_active.inc();
        self.host.stats.rq_total.fetch_add(1, Relaxed);
        self.host.stats.rq_active.fetch_add(1, Relaxed);
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
        self.breakers().requests.dec();
        self.cluster.stats.local().upstream_rq_active.dec();
        self.host.stats.rq_active.fetch_sub(1, Relaxed);
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
                return;
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

    /// Opens connections for those who wait and cannot be served by what is being opened already.
    pub(super) fn connect_as_needed(self: &Rc<Self>) {
        loop {
            let (wanted, none_at_all) = {
                let state = self.state.borrow();
                // One connection being opened serves one request, or (HTTP/2) all of them.
                let capacity = match self.protocol {
                    HttpProtocol::Http2 => state.connecting.saturating_mul(self.h2_streams()),
                    _ => state.connecting,
                };
                (state.pending.len() > capacity, state.open + state.connecting == 0)
            };
            if !wanted {
                return;
            }
            let connections = &self.breakers().connections;
            let per_host = self.breakers().connections_per_host;
            let allowed = connections.can_create() && self.host.stats.cx_active.load(Relaxed) < per_host;
            if !allowed {
                self.cluster.stats.local().upstream_cx_overflow.inc();
            }
            // A host without any connection gets one whatever the breaker says, or those who wait would wait for ever.
            if !allowed && !none_at_all {
                return;
            }
            self.state.borrow_mut().connecting += 1;
            let opening = OpenGuard::new(self.clone());
            tokio::task::spawn_local(opening.run());
        }
    }

    fn h2_streams(&self) -> usize {
        self.cluster.http.http2.max_concurrent_streams.max(1) as usize
    }

    pub(super) fn alpn(&self) -> &'static [&'static str] {
        match self.protocol {
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
        self.connect_as_needed();
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
        self.breakers().connection_pools.dec();
    }
}
