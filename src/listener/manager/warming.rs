//! Listeners that wait for route tables, secrets and extensions before they serve.

use std::sync::Arc;

use super::{ListenerManager, ListenerSnapshot};
use crate::{config::InitTarget, server::ServerContext};

pub(super) struct Warming {
    pub(super) snapshot: ListenerSnapshot,
    generation: u64,
    targets: Vec<InitTarget>,
}

impl ListenerManager {
    /// Publishes a listener once its targets are ready. One of its name that waits already is given up.
    pub(super) fn warm(&self, snapshot: ListenerSnapshot, targets: Vec<InitTarget>, server: &Arc<ServerContext>) {
        let name = snapshot.config.name.to_string();
        if targets.iter().all(|t| *t.ready.borrow()) {
            self.state().warming.shift_remove(&name);
            self.publish(snapshot, server);
            return;
        }
        let mut readies: Vec<_> = targets.iter().map(|t| t.ready.clone()).collect();
        let generation = {
            let mut state = self.state();
            let generation = state.next_id();
            let waiting = Warming {
                snapshot,
                generation,
                targets,
            };
            state.warming.insert(name.clone(), waiting);
            self.count(&state);
            generation
        };
        let server = server.clone();
        server.clone().mailboxes.run_on_control(move |_| {
            tokio::task::spawn_local(async move {
                for ready in &mut readies {
                    // An ended sender means its subscription is gone: nothing more will come of it.
                    let _ = ready.wait_for(|r| *r).await;
                }
                let warm = {
                    let mut state = server.listeners.state();
                    let current = state.warming.get(&name).is_some_and(|w| w.generation == generation);
                    current.then(|| state.warming.shift_remove(&name)).flatten()
                };
                // Else it was replaced or removed meanwhile.
                if let Some(warm) = warm {
                    server.listeners.publish(warm.snapshot, &server);
                }
            });
        });
    }

    /// The listeners that wait, each with what it waits for.
    pub fn warming(&self) -> Vec<(ListenerSnapshot, Vec<String>)> {
        let state = self.state();
        let open = |w: &Warming| {
            w.targets
                .iter()
                .filter(|t| !*t.ready.borrow())
                .map(|t| t.name.clone())
                .collect()
        };
        state.warming.values().map(|w| (w.snapshot.clone(), open(w))).collect()
    }
}
