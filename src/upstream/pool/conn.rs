//! A connection as its task, its pool and its requests know it.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Instant,
};

use super::{UpstreamConnInfo, h1, h2};

/// A ready connection, or one that a request has.
pub(super) enum Sender {
    H1(h1::Sender),
    H2(h2::Sender),
}

/// What a connection's task, its pool and its requests share.
pub(super) struct Conn {
    pub(super) info: Arc<UpstreamConnInfo>,
    pub(super) created: Instant,
    /// Requests in flight.
    pub(super) active: Cell<u32>,
    /// Streams the upstream allows at once; its task keeps it up to date.
    pub(super) max_streams: Cell<usize>,
    /// Requests so far.
    pub(super) requests: Cell<u32>,
    pub(super) idle_since: Cell<Instant>,
    /// No further requests: too old, too many requests, or the pool drains.
    pub(super) retired: Cell<bool>,
    /// The close that follows is this side's.
    pub(super) closed_locally: Cell<bool>,
    /// It ended with a request in flight.
    pub(super) cut: Cell<bool>,
    /// What is left of a request whose byte stream was taken over.
    pub(super) tunnel: RefCell<Option<h1::GivenAway>>,
}

impl Conn {
    pub(super) fn new(info: Arc<UpstreamConnInfo>) -> Self {
        Self {
            info,
            created: Instant::now(),
            active: Cell::new(0),
            max_streams: Cell::new(usize::MAX),
            requests: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            retired: Cell::new(false),
            closed_locally: Cell::new(false),
            cut: Cell::new(false),
            tunnel: RefCell::default(),
        }
    }

    /// Whether an earlier request has used it: such a connection may have been closed meanwhile.
    pub(super) fn reused(&self) -> bool {
        self.requests.get() > 1
    }
}
