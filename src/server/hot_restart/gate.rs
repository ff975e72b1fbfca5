//! Whether the admin accepts connections: a successor takes over its socket while it initialises.

use tokio::sync::watch;

/// What the admin does with its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdminState {
    /// Accepts.
    #[default]
    Open,
    /// A child accepts on the same socket. If it dies, this process accepts again.
    Paused,
    /// The child serves: the socket is closed.
    Closed,
}

/// Tells the admin's accept loop, which runs on a thread of its own.
#[derive(Debug, Default)]
pub struct AdminGate(watch::Sender<AdminState>);

impl AdminGate {
    /// To be told by.
    pub fn listen(&self) -> watch::Receiver<AdminState> {
        self.0.subscribe()
    }

    /// Changes what the admin does; what is closed stays closed.
    pub(super) fn set(&self, state: AdminState) {
        self.0.send_if_modified(|now| {
            let changes = *now != AdminState::Closed && *now != state;
            if changes {
                *now = state;
            }
            changes
        });
    }
}
