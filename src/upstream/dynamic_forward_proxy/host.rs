//! One name of a cache.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::Authority;

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// All addresses, with the port; none if it never resolved.
    pub addresses: Vec<SocketAddr>,
    /// What the last attempt came to, in Envoy's words.
    pub details: Cow<'static, str>,
}

/// A name of a cache, shared by control, which resolves it, and workers.
#[derive(Debug)]
pub struct CachedHost {
    /// Host and port, as requests name it.
    pub key: Arc<str>,
    /// What is resolved.
    pub name: Box<str>,
    /// Where connections go to.
    pub port: u16,
    /// None before the first attempt has come to an end.
    known: ArcSwap<Option<Known>>,
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    last_used: AtomicU64,
}

impl CachedHost {
    pub(super) fn new(key: &str, default_port: u16) -> Self {
        let Authority { host, port } = Authority::parse(key);
        Self {
            key: key.into(),
            name: host.into(),
            port: port.unwrap_or(default_port),
            known: ArcSwap::default(),
            waiting: Mutex::default(),
            last_used: AtomicU64::new(now()),
        }
    }

    /// Whether it is known what becomes of the name.
    pub fn is_resolved(&self) -> bool {
        self.known.load().is_some()
    }

    /// The first address.
    pub fn address(&self) -> Option<SocketAddr> {
        (**self.known.load()).as_ref()?.addresses.first().copied()
    }

    /// All addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (**self.known.load())
            .as_ref()
            .map(|k| k.addresses.clone())
            .unwrap_or_default()
    }

    /// What the last attempt to resolve it came to.
    pub fn details(&self) -> Cow<'static, str> {
        (**self.known.load())
            .as_ref()
            .map(|k| k.details.clone())
            .unwrap_or_default()
    }

    /// A request uses it.
    pub fn touch(&self) {
        self.last_used.store(now(), Relaxed);
    }

    /// How long ago a request used it.
    pub(super) fn unused_for(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.last_used.load(Relaxed)))
    }

    /// Tells `sender` when it is resolved, now if it is.
    pub(super) fn notify(&self, sender: oneshot::Sender<()>) {
        // Under the lock, so that no sender comes too late for the last call.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.is_resolved() {
            true => drop(sender.send(())),
            false => waiting.push(sender),
        }
    }

    /// Whether these addresses are others than the present ones; none are no others. Only the first one's place
    /// counts.
    pub(super) fn moves_to(&self, addresses: &[SocketAddr]) -> bool {
        let before = self.addresses();
        !addresses.is_empty()
            && (addresses.first() != before.first()
                || addresses.len() != before.len()
                || addresses.iter().any(|a| !before.contains(a)))
    }

    /// Takes in what an attempt came to: addresses stay if it brought none. Whoever waits for it goes on.
    pub(super) fn take(&self, addresses: Vec<SocketAddr>, details: Cow<'static, str>) {
        let addresses = if self.moves_to(&addresses) {
            addresses
        } else {
            self.addresses()
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.known.store(Arc::new(Some(Known { addresses, details })));
        for sender in waiting.drain(..) {
            // Whoever waited may be gone.
            let _ = sender.send(());
        }
    }
}

/// Milliseconds since the first call.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
