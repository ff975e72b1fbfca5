//! The sessions of one cluster at one socket.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    ptr,
    rc::{Rc, Weak},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{config::UdpClusterStats, filter::Shared, session::Session};
use crate::{
    http::Flag,
    listener::Datagram,
    stats::Stats,
    upstream::{ClusterWatcher, Health, Host, LbContext, ResourcePriority, WorkerCluster},
};

/// Whose datagrams belong to one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// With load balancing per packet, also the host; kept by the session, so that no other one is at its place.
    host: *const Host,
}

/// Sessions by the addresses of their client. How many there are is limited by the cluster's `max_connections`.
pub(super) struct ClusterSessions {
    pub(super) shared: Rc<Shared>,
    pub(super) cluster: Rc<WorkerCluster>,
    pub(super) stats: Stats<UdpClusterStats>,
    sessions: RefCell<HashMap<Key, Rc<Session>, RandomState>>,
    /// The cluster is removed or replaced: sessions have ended, and there will be no others.
    gone: Cell<bool>,
}

impl ClusterSessions {
    pub(super) fn attach(cluster: Rc<WorkerCluster>, shared: Rc<Shared>) -> Rc<Self> {
        let sessions = Rc::new(Self {
            stats: cluster.info.scope.block(),
            cluster,
            shared,
            sessions: RefCell::default(),
            gone: Cell::new(false),
        });
        let watcher: Rc<dyn ClusterWatcher> = sessions.clone();
        sessions.cluster.watch(Rc::downgrade(&watcher));
        sessions
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// A datagram of a client.
    pub(super) fn on_data(self: &Rc<Self>, datagram: &Datagram<'_>) {
        let session = match self.shared.config.per_packet {
            true => self.of_packet(datagram),
            false => self.sticky(datagram),
        };
        if let Some(session) = session {
            session.on_data(datagram.bytes);
        }
    }

    /// Ends a session.
    pub(super) fn remove(&self, key: &Key) {
        let ended = self.sessions.borrow_mut().remove(key);
        drop(ended);
    }

    /// Ends all sessions.
    pub(super) fn clear(&self) {
        let ended = self.sessions.take();
        drop(ended);
    }

    /// Chooses a host for a client.
    pub(super) fn choose(&self, peer: SocketAddr) -> Option<Arc<Host>> {
        let hash = self.shared.config.hash.as_ref().map(|h| h.hash(peer.ip()));
        self.cluster.pick(&LbContext {
            hash,
            ..LbContext::default()
        })
    }

    /// The session of the client, whatever its host.
    fn sticky(self: &Rc<Self>, datagram: &Datagram<'_>) -> Option<Rc<Session>> {
        let key = Key {
            local: datagram.local,
            peer: datagram.peer,
            host: ptr::null(),
        };
        // Session filters come before the host.
        let deferred = !self.shared.config.session_filters.is_empty();
        let known = self.sessions.borrow().get(&key).cloned();
        let Some(session) = known else {
            let host = match deferred {
                true => None,
                false => Some(self.choose(key.peer)?),
            };
            return self.create(key, host);
        };
        let unhealthy = |host: &Arc<Host>| host.health() == Health::Unhealthy;
        if let Some(present) = session.host().filter(|h| !deferred && unhealthy(h))
            && let Some(other) = self.choose(key.peer)
            && !unhealthy(&other)
            && !Arc::ptr_eq(&present, &other)
        {
            drop(session);
            self.remove(&key);
            return self.create(key, Some(other));
        }
        Some(session)
    }

    /// The session of the client with the host that this datagram goes to.
    fn of_packet(self: &Rc<Self>, datagram: &Datagram<'_>) -> Option<Rc<Session>> {
        let host = self.choose(datagram.peer)?;
        let key = Key {
            local: datagram.local,
            peer: datagram.peer,
            host: Arc::as_ptr(&host),
        };
        let known = self.sessions.borrow().get(&key).cloned();
        known.or_else(|| self.create(key, Some(host)))
    }

    fn create(self: &Rc<Self>, key: Key, host: Option<Arc<Host>>) -> Option<Rc<Session>> {
        let session = Session::new(key, self);
        let resources = self.cluster.info.resources(ResourcePriority::Default);
        if !resources.connections.can_create() {
            self.cluster.info.stats.local().upstream_cx_overflow.inc();
            session.flag(Flag::UpstreamOverflow);
            return None;
        }
        session.count(resources.count_connection());
        // A session that cannot begin ends here, with its log line.
        if !session.begin(host, self) {
            return None;
        }
        self.sessions.borrow_mut().insert(key, session.clone());
        Some(session)
    }
}

impl ClusterWatcher for ClusterSessions {
    fn hosts_removed(&self) {
        let removed = |s: &Rc<Session>| s.host().is_some_and(|h| h.is_removed());
        let ended: Vec<_> = self
            .sessions
            .borrow_mut()
            .extract_if(|_, session| removed(session))
            .collect();
        drop(ended);
    }

    fn gone(&self) {
        self.gone.set(true);
        self.clear();
    }
}

impl Drop for ClusterSessions {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A session's way back to where it is kept.
pub(super) type Owner = Weak<ClusterSessions>;
