//! Draining: of a listener that is replaced or removed, of filter chains that an update in place has dropped, and of all
//! listeners when the server is about to go.
//!
//! The first two have the drain time (`--drain-time-s`), then what is left of their connections is cut. A drain of the
//! server only asks; who ends the process ends the rest.

use std::{sync::Arc, time::Instant};

use super::{ListenerManager, ListenerSnapshot, Scope, State};
use crate::{
    listener::{FilterChain, ListenerConfig, active::ListenerMsg},
    server::{ServerContext, WorkerMsg},
};

/// `%DOWNSTREAM_LOCAL_CLOSE_REASON%` of connections of a listener that is gone.
const LISTENER_REMOVED: &str = "purging_socket_that_have_not_progressed_to_connections";
/// The same of a filter chain.
const CHAIN_REMOVED: &str = "filter_chain_is_being_removed";

/// A listener whose connections have until its drain time is over.
pub(super) struct Draining {
    id: u64,
    pub(super) snapshot: ListenerSnapshot,
}

impl ListenerManager {
    /// Drains a listener that no worker takes connections for any more.
    pub(super) fn drain_listener(&self, state: &mut State, mut old: ListenerSnapshot, server: &Arc<ServerContext>) {
        let sockets = std::mem::take(&mut old.sockets);
        if let Some(leaving) = &mut state.leaving {
            leaving.extend(sockets);
        }
        let now = Instant::now();
        old.config.chains.chains().for_each(|chain| chain.drain.start_at(now));
        let id = state.next_id();
        state.draining.insert(0, Draining { id, snapshot: old });
        after_drain_time(server, move |server| {
            let manager = &server.listeners;
            let mut state = manager.state();
            let Some(at) = state.draining.iter().position(|d| d.id == id) else {
                return;
            };
            let gone = state.draining.remove(at).snapshot;
            gone.config
                .chains
                .chains()
                .for_each(|chain| chain.drain.end(LISTENER_REMOVED));
            manager.count(&state);
        });
    }

    /// Drains the chains of `old` that `new` has not.
    pub(super) fn drain_chains(&self, old: &ListenerSnapshot, new: &ListenerConfig, server: &Arc<ServerContext>) {
        let now = Instant::now();
        if let Some(drained) = old.drained {
            new.chains.chains().for_each(|chain| chain.drain.start_at(drained));
        }
        let kept: std::collections::HashSet<_> = new.chains.chains().map(Arc::as_ptr).collect();
        let dropped: Vec<Arc<FilterChain>> = old
            .config
            .chains
            .chains()
            .filter(|chain| !kept.contains(&Arc::as_ptr(chain)))
            .cloned()
            .collect();
        dropped.iter().for_each(|chain| chain.drain.start_at(now));
        let count = dropped.len() as u64;
        self.stats.local().total_filter_chains_draining.add(count);
        after_drain_time(server, move |server| {
            dropped.iter().for_each(|chain| chain.drain.end(CHAIN_REMOVED));
            server.listeners.stats.local().total_filter_chains_draining.sub(count);
        });
    }

    /// Asks the connections of all listeners, or of those of inbound direction, to go. Listeners go on accepting, and ask
    /// new connections, too; listeners that come later are not concerned.
    pub fn drain(&self, inbound_only: bool) {
        let scope = Scope::of(inbound_only);
        let now = Instant::now();
        for listener in self.state().active.values_mut().filter(|l| scope.takes(&l.config)) {
            listener.drained.get_or_insert(now);
            listener
                .config
                .chains
                .chains()
                .for_each(|chain| chain.drain.start_at(now));
        }
    }

    /// Drains as [`Self::drain`], and stops the listeners after the drain time unless `stay`
    /// (`/drain_listeners?graceful`). Again it does nothing, unless more listeners are meant than before.
    pub fn drain_gracefully(&self, inbound_only: bool, stay: bool, server: &Arc<ServerContext>) {
        let scope = Scope::of(inbound_only);
        {
            let mut state = self.state();
            if state.draining_server >= Some(scope) {
                return;
            }
            state.draining_server = Some(scope);
        }
        self.drain(inbound_only);
        if !stay {
            after_drain_time(server, move |server| server.listeners.stop(inbound_only, server));
        }
    }

    /// Stops accepting: all listeners, or those of inbound direction. Their sockets close, and listeners of that
    /// direction can no longer be added.
    pub fn stop(&self, inbound_only: bool, server: &Arc<ServerContext>) {
        let scope = Scope::of(inbound_only);
        let mut state = self.state();
        let state = &mut *state;
        state.stopped = Some(scope);
        for (name, listener) in state.active.iter_mut().filter(|(_, l)| scope.takes(&l.config)) {
            state.warming.shift_remove(name);
            if !state.stopped_tags.insert(listener.tag) {
                continue;
            }
            self.stats.local().listener_stopped.inc();
            listener.sockets = Vec::new();
            let name = listener.config.name.clone();
            server
                .mailboxes
                .to_traffic(|_| WorkerMsg::Listener(ListenerMsg::Remove(name.clone())));
        }
        self.count(state);
    }
}

fn after_drain_time(server: &Arc<ServerContext>, then: impl FnOnce(&Arc<ServerContext>) + Send + 'static) {
    let server = server.clone();
    server.clone().mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(server.drain_time).await;
            then(&server);
        });
    });
}
