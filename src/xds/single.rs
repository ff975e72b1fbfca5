//! A handler for watches of exactly one resource: RDS, EDS, SDS, ECDS, RTDS, VHDS parents.

use std::{marker::PhantomData, sync::Arc};

use tokio::sync::watch;
use xds_protos::prost::{Message, Name};

use super::{
    handler::{FetchFailure, Rejected, Resource, ResourceHandler, Update},
    open::open,
};
use crate::{
    config::{BuildCx, ConfigResult, InitTarget},
    server::ServerContext,
};

/// What happened to the resource.
#[derive(Debug)]
pub enum Change<'a, P> {
    /// A new version.
    Set {
        /// Decoded and validated.
        proto: P,
        /// As it came, with its version.
        resource: &'a Resource,
    },
    /// The control plane removed it. What was applied stays unless its type says otherwise.
    Removed,
    /// The answer had no resource at all.
    Nothing,
}

/// The handler behind [`Handle::watch_one`](super::Handle::watch_one).
pub(super) struct Single<P, F> {
    what: &'static str,
    name: String,
    stat_prefix: String,
    apply: F,
    ready: watch::Sender<bool>,
    proto: PhantomData<fn() -> P>,
}

impl<P, F> Single<P, F> {
    pub(super) fn new(what: &'static str, name: &str, stat_prefix: String, apply: F) -> (Self, InitTarget) {
        let (ready, receiver) = watch::channel(false);
        let target = InitTarget {
            name: format!("{what} {name}"),
            ready: receiver,
        };
        let handler = Self {
            what,
            name: name.to_owned(),
            stat_prefix,
            apply,
            ready,
            proto: PhantomData,
        };
        (handler, target)
    }
}

impl<P, F> Single<P, F> {
    /// What Envoy says of a state of the world with more than the one resource, where it refuses all of it.
    fn crowded(&self, count: usize) -> Option<String> {
        let service = self.what.split(' ').next().filter(|s| matches!(*s, "EDS" | "RDS"))?;
        Some(format!("Unexpected {service} resource length: {count}"))
    }
}

impl<P, F> ResourceHandler for Single<P, F>
where
    P: Message + Name + Default,
    F: FnMut(Change<'_, P>, &Arc<ServerContext>) -> ConfigResult<()>,
{
    fn stat_prefix(&self) -> String {
        self.stat_prefix.clone()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        if update.full
            && update.added.len() > 1
            && let Some(reason) = self.crowded(update.added.len())
        {
            let name = self.name.clone();
            self.ready.send_replace(true);
            return vec![Rejected { name, reason }];
        }
        if update.added.is_empty()
            && update.removed.is_empty()
            && let Err(error) = (self.apply)(Change::Nothing, server)
        {
            rejected.push(Rejected::new(&self.name, &error));
        }
        let own = update.added.iter().any(|r| r.name == self.name);
        for resource in update.added.iter().filter(|r| !own || r.name == self.name) {
            if resource.name != self.name {
                rejected.push(Rejected {
                    name: resource.name.clone(),
                    reason: format!("Unexpected {} (expecting {}): {}", self.what, self.name, resource.name),
                });
                continue;
            }
            let applied = open::<P>(&resource.any, &BuildCx::new(server))
                .and_then(|proto| (self.apply)(Change::Set { proto, resource }, server));
            if let Err(error) = applied {
                rejected.push(Rejected::new(&self.name, &error));
            }
        }
        if update.removed.contains(&self.name)
            && let Err(error) = (self.apply)(Change::Removed, server)
        {
            rejected.push(Rejected::new(&self.name, &error));
        }
        self.ready.send_replace(true);
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        if !matches!(reason, FetchFailure::Connection(_)) {
            self.ready.send_replace(true);
        }
    }
}
