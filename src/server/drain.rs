//! Draining: how a connection learns that it should finish what it does and close.
//!
//! A drain is a wish, not an order: a connection that holds a [`Drain`] ends when it is idle or at its
//! next response. What must end is ended by dropping its task, after the drain time.

use tokio::sync::watch;

/// The side that starts a drain.
#[derive(Debug)]
pub struct DrainSignal(watch::Sender<bool>);

/// The side that is told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

impl Default for DrainSignal {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl DrainSignal {
    /// Starts the drain; a second call has no effect.
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    /// A handle to be told by.
    pub fn listen(&self) -> Drain {
        Drain(self.0.subscribe())
    }
}

impl Drain {
    /// Whether the drain has started.
    pub fn started(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the drain to start; for ever when the signal is dropped without it.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|d| *d).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
