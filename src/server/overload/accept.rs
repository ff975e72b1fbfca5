//! `stop_accepting_connections`: accept loops pause, and connections wait in the kernel's queue.

use std::future::Future;

use tokio::sync::watch;

use super::ServerContext;

/// Where the control thread closes and opens all listeners.
pub(super) struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::channel(true).0)
    }
}

impl Gate {
    /// Opens or closes it.
    pub(super) fn set(&self, open: bool) {
        self.0.send_if_modified(|now| std::mem::replace(now, open) != open);
    }

    pub(super) fn listen(&self) -> Accepting {
        Accepting(Some(self.0.subscribe()))
    }
}

/// Whether an accept loop may accept; always without an overload manager.
#[derive(Clone)]
pub struct Accepting(Option<watch::Receiver<bool>>);

impl Accepting {
    /// For a listener; one that bypasses the overload manager always accepts.
    pub fn of(server: &ServerContext, bypass: bool) -> Self {
        match server.overload() {
            Some(overload) if !bypass => overload.accepting(),
            _ => Self(None),
        }
    }

    /// Waits for `accept`, which is given up whenever the gate closes, and made anew when it opens.
    pub async fn run<F: Future>(&mut self, accept: impl Fn() -> F) -> F::Output {
        let Some(open) = &mut self.0 else {
            return accept().await;
        };
        loop {
            // The manager lives as long as the process; without it nothing closes the gate.
            if !*open.borrow_and_update() && open.changed().await.is_ok() {
                continue;
            }
            tokio::select! {
                biased;
                Ok(()) = open.changed() => {}
                accepted = accept() => return accepted,
            }
        }
    }
}
