//! One watch on the control thread: its handler, its statistics, its `initial_fetch_timeout`.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    handle::Names,
    handler::{FetchFailure, Rejected, Resource, ResourceHandler, Update},
    stats::SubscriptionStats,
};
use crate::server::ServerContext;

/// Tells watches apart.
pub(super) type WatchId = u64;

/// A watch as [`Handle::watch`](super::Handle::watch) asks for it.
pub(super) struct NewWatch {
    pub id: WatchId,
    pub type_url: String,
    pub names: Names,
    pub handler: Box<dyn ResourceHandler + Send>,
    /// Cleared when the guard is dropped, so that nothing reaches a watcher after that.
    pub alive: Arc<AtomicBool>,
    /// `initial_fetch_timeout`; zero is for ever.
    pub timeout: Duration,
}

/// What is said to the task that owns a watch.
pub(super) enum Command {
    Watch(Box<NewWatch>),
    Unwatch(WatchId),
    /// Asks for one more name.
    Demand(WatchId, String),
    /// A type is paused no longer: what was held back can go.
    Resume,
}

/// Waits until the guard of a task with one watch is dropped. Files and REST have nothing to demand of.
pub(super) async fn ended(commands: &mut tokio::sync::mpsc::UnboundedReceiver<Command>) {
    while let Some(Command::Watch(_) | Command::Demand(..) | Command::Resume) = commands.recv().await {}
}

/// What `update_attempt` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempts {
    /// On a stream: the subscription, every response and every failure, as Envoy counts there.
    Events,
    /// Where it is asked each time (files, REST): every request, with [`Watch::attempted`].
    Requests,
}

/// A watch.
pub(super) struct Watch {
    /// What it asks for.
    pub names: Names,
    handler: Box<dyn ResourceHandler + Send>,
    stats: SubscriptionStats,
    attempts: Attempts,
    alive: Arc<AtomicBool>,
    deadline: Option<Instant>,
    // What a wildcard watch was given, so that the next state of the world tells what is gone.
    known: BTreeSet<String>,
}

impl Watch {
    /// A watch that begins to wait now.
    pub fn new(new: NewWatch, attempts: Attempts, server: &Arc<ServerContext>) -> Self {
        let stats = SubscriptionStats::new(&server.stats, &new.handler.stat_prefix());
        if attempts == Attempts::Events {
            stats.block.local().update_attempt.inc();
        }
        Self {
            names: new.names,
            handler: new.handler,
            stats,
            attempts,
            alive: new.alive,
            deadline: (!new.timeout.is_zero()).then(|| Instant::now() + new.timeout),
            known: BTreeSet::new(),
        }
    }

    /// Applies a state of the world. `complete` is false when some
    /// resource could not be read: then nothing is taken to be gone.
    pub fn state_of_the_world(
        &mut self,
        version: &str,
        resources: &[Resource],
        complete: bool,
        server: &Arc<ServerContext>,
    ) -> Vec<Rejected> {
        // A handler of one name judges the others itself: the file or server is misconfigured.
        let added = resources.to_vec();
        let mut removed = Vec::new();
        let now: BTreeSet<String> = match self.names {
            Names::Wildcard => added.iter().map(|r| r.name.clone()).collect(),
            Names::One(_) | Names::Namespace(_) => BTreeSet::new(),
        };
        if complete && self.names == Names::Wildcard {
            removed.extend(self.known.difference(&now).cloned());
        }
        let update = Update {
            version: version.to_owned(),
            added,
            removed,
            full: true,
        };
        let rejected = self.apply(update, complete, server);
        if complete && rejected.is_empty() {
            self.known = now;
        } else {
            // The handler may have kept what is missing; then the next response tells again.
            self.known.extend(now);
        }
        rejected
    }

    /// Applies an update and counts it; a watch whose guard is gone takes nothing any more.
    pub fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        self.apply(update, true, server)
    }

    fn apply(&mut self, update: Update, complete: bool, server: &Arc<ServerContext>) -> Vec<Rejected> {
        if !self.alive.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut update = update;
        if let Names::Namespace(namespace) = &self.names {
            let within = |name: &str| name.rsplit_once('/').is_some_and(|(space, _)| space == namespace);
            update.added.retain(|r| within(&r.name));
            update.removed.retain(|name| within(name));
            if update.added.is_empty() && update.removed.is_empty() {
                // An answer, but no update that counts.
                self.deadline = None;
                return self.handler.update(update, server);
            }
        }
        self.deadline = None;
        self.event();
        let version = update.version.clone();
        let start = Instant::now();
        let rejected = self.handler.update(update, server);
        if complete && rejected.is_empty() {
            let took = (self.attempts == Attempts::Events).then(|| start.elapsed());
            self.stats.applied(&version, took);
        } else {
            self.stats.block.local().update_rejected.inc();
        }
        rejected
    }

    /// Hands on and counts a failure.
    pub fn failed(&mut self, reason: FetchFailure) {
        if !self.alive.load(Ordering::Acquire) {
            return;
        }
        self.event();
        let stats = self.stats.block.local();
        match &reason {
            FetchFailure::Timeout => stats.init_fetch_timeout.inc(),
            FetchFailure::Rejected(_) => stats.update_rejected.inc(),
            FetchFailure::Connection(_) => stats.update_failure.inc(),
        }
        if !matches!(reason, FetchFailure::Connection(_)) {
            self.deadline = None;
        }
        self.handler.failed(reason);
    }

    /// Hands on that a file could not be read as a response: nobody waits for it any longer, but Envoy counts it as a
    /// failure, since nothing is known to be wrong with a resource.
    pub fn unreadable(&mut self, reason: String) {
        if self.alive.load(Ordering::Acquire) {
            self.stats.block.local().update_failure.inc();
            self.deadline = None;
            self.handler.failed(FetchFailure::Rejected(reason));
        }
    }

    /// Counts a request.
    pub fn attempted(&self) {
        self.stats.block.local().update_attempt.inc();
    }

    fn event(&self) {
        if self.attempts == Attempts::Events {
            self.stats.block.local().update_attempt.inc();
        }
    }

    /// When the first answer must be there; none once it is, or when it may take for ever.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
