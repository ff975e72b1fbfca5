//! All watches of one type on one stream: who wants which name, what each was given last, what expires when.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    handle::Names,
    handler::{FetchFailure, Rejected, Resource, Update},
    watch::{Watch, WatchId},
    wire::Heartbeat,
};
use crate::server::ServerContext;

/// The name that stands for everything.
pub(super) const WILDCARD: &str = "*";

/// The watches of one type.
pub(super) struct WatchMap {
    /// The type watched.
    pub type_url: String,
    watches: BTreeMap<WatchId, Watch>,
    interest: BTreeMap<String, BTreeSet<WatchId>>,
    // The last version of each named resource that is watched. A watch that joins others of its name, as that of an
    // updated cluster does, is served from here: the control plane, asked for the same names again, need not answer.
    latest: HashMap<String, Resource>,
    expiry: HashMap<String, Instant>,
    // When first answers fall due; those that came stay listed until they are the next. With ten thousand watches this
    // is asked for with every response.
    timeouts: BTreeSet<(Instant, WatchId)>,
}

impl WatchMap {
    pub fn new(type_url: &str) -> Self {
        Self {
            type_url: type_url.to_owned(),
            watches: BTreeMap::new(),
            interest: BTreeMap::new(),
            latest: HashMap::new(),
            expiry: HashMap::new(),
            timeouts: BTreeSet::new(),
        }
    }

    /// Adds a watch; returns its name if nobody watched it before. It is given at once what is known of its name.
    pub fn add(&mut self, id: WatchId, mut watch: Watch, server: &Arc<ServerContext>) -> Option<String> {
        let name = key(&watch.names).to_owned();
        if let Some(resource) = self.latest.get(&name) {
            let update = Update {
                version: resource.version.clone(),
                added: vec![resource.clone()],
                ..Update::default()
            };
            for rejected in watch.update(update, server) {
                tracing::warn!(
                    name,
                    reason = rejected.reason,
                    "a known resource was rejected by a new watch"
                );
            }
        }
        self.timeouts.extend(watch.deadline().map(|at| (at, id)));
        self.watches.insert(id, watch);
        let watchers = self.interest.entry(name.clone()).or_default();
        watchers.insert(id);
        (watchers.len() == 1).then_some(name)
    }

    /// Removes a watch; returns its name if nobody watches it any longer.
    pub fn remove(&mut self, id: WatchId) -> Option<String> {
        let watch = self.watches.remove(&id)?;
        let name = key(&watch.names);
        let watchers = self.interest.get_mut(name)?;
        watchers.remove(&id);
        if !watchers.is_empty() {
            return None;
        }
        self.interest.remove(name);
        self.latest.remove(name);
        if !self.interest.contains_key(WILDCARD) {
            self.expiry.remove(name);
        }
        Some(name.to_owned())
    }

    /// Whether this watch is here.
    pub fn contains(&self, id: WatchId) -> bool {
        self.watches.contains_key(&id)
    }

    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Names to ask for, sorted, `*` among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.interest.keys().map(String::as_str)
    }

    /// Whether this name is watched, by name or by wildcard.
    pub fn wants(&self, name: &str) -> bool {
        self.interest.contains_key(WILDCARD) || self.interest.contains_key(name)
    }

    /// Delivers a state of the world: wildcard watches get all of it, the others only what is theirs and there.
    pub fn state_of_the_world(
        &mut self,
        version: &str,
        resources: &[Resource],
        complete: bool,
        server: &Arc<ServerContext>,
    ) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for id in self.watchers(WILDCARD) {
            if let Some(watch) = self.watches.get_mut(&id) {
                rejected.extend(watch.state_of_the_world(version, resources, complete, server));
            }
        }
        for resource in resources {
            self.deliver_one(version, resource, server, &mut rejected);
        }
        rejected
    }

    /// Delivers changes.
    pub fn changes(
        &mut self,
        version: &str,
        added: &[Resource],
        removed: &[String],
        server: &Arc<ServerContext>,
    ) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for id in self.watchers(WILDCARD) {
            if let Some(watch) = self.watches.get_mut(&id) {
                let update = Update {
                    version: version.to_owned(),
                    added: added.to_vec(),
                    removed: removed.to_vec(),
                    full: false,
                };
                rejected.extend(watch.update(update, server));
            }
        }
        for resource in added {
            self.deliver_one(version, resource, server, &mut rejected);
        }
        for name in removed {
            self.latest.remove(name);
            self.expiry.remove(name);
            for id in self.watchers(name) {
                if let Some(watch) = self.watches.get_mut(&id) {
                    let update = Update {
                        version: version.to_owned(),
                        removed: vec![name.clone()],
                        ..Update::default()
                    };
                    rejected.extend(watch.update(update, server));
                }
            }
        }
        rejected
    }

    fn deliver_one(
        &mut self,
        version: &str,
        resource: &Resource,
        server: &Arc<ServerContext>,
        rejected: &mut Vec<Rejected>,
    ) {
        let watchers = self.watchers(&resource.name);
        let before = rejected.len();
        for id in &watchers {
            if let Some(watch) = self.watches.get_mut(id) {
                let update = Update {
                    version: version.to_owned(),
                    added: vec![resource.clone()],
                    ..Update::default()
                };
                for refusal in watch.update(update, server) {
                    // Several watchers of one resource refuse it for one reason, mostly.
                    if !rejected.contains(&refusal) {
                        rejected.push(refusal);
                    }
                }
            }
        }
        if !watchers.is_empty() && rejected.len() == before {
            self.latest.insert(resource.name.clone(), resource.clone());
        }
    }

    // Ids are collected because a handler may end other watches, whose commands come later.
    fn watchers(&self, name: &str) -> Vec<WatchId> {
        self.interest
            .get(name)
            .map(|ids| ids.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Tells every watch of a failure.
    pub fn failed(&mut self, reason: &FetchFailure) {
        for watch in self.watches.values_mut() {
            watch.failed(reason.clone());
        }
    }

    /// Starts, renews or ends the time to live of what came.
    pub fn set_expiry(&mut self, resources: &[Resource], heartbeats: &[Heartbeat]) {
        let now = Instant::now();
        let beats = heartbeats.iter().map(|h| (&h.name, h.ttl));
        for (name, ttl) in resources.iter().map(|r| (&r.name, r.ttl)).chain(beats) {
            match ttl {
                Some(ttl) => self.expiry.insert(name.clone(), now + ttl),
                None => self.expiry.remove(name),
            };
        }
    }

    /// When something of this type falls due: a first answer, a time to live.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let waits = |id| self.watches.get(&id).is_some_and(|watch| watch.deadline().is_some());
        while self.timeouts.first().is_some_and(|(_, id)| !waits(*id)) {
            self.timeouts.pop_first();
        }
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        timeout.into_iter().chain(self.expiry.values().copied()).min()
    }

    /// Does what has fallen due; returns the names that expired.
    pub fn expire(&mut self, now: Instant, server: &Arc<ServerContext>) -> Vec<String> {
        for watch in self.watches.values_mut() {
            if watch.deadline().is_some_and(|at| at <= now) {
                tracing::warn!(type_url = self.type_url, names = ?watch.names, "initial fetch timed out");
                watch.failed(FetchFailure::Timeout);
            }
        }
        let expired: Vec<String> = self
            .expiry
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        if !expired.is_empty() {
            self.changes("", &[], &expired, server);
        }
        expired
    }
}

pub(super) fn key(names: &Names) -> &str {
    match names {
        Names::Wildcard | Names::Namespace(_) => WILDCARD,
        Names::One(name) => name,
    }
}
