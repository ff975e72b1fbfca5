//! Keys that are known when a resource is configured, so that reading one on the request path is an atomic load.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use super::{Entry, Snapshot};
use crate::config::FractionalPercent;

const INTEGER: u8 = 1;
const DOUBLE: u8 = 2;
const SHARE: u8 = 4;
const BOOLEAN: u8 = 8;
const TRUE: u8 = 16;

/// An interned key: everybody who names the same key holds the same slot. Cheap to clone; follows every change.
#[derive(Debug, Clone, Default)]
pub struct Key(Option<Arc<Slot>>);

/// The value of one key. Values are written before the flags that announce them, so a reader that meets a change sees
/// the old value or the new one.
#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    known: AtomicU8,
    integer: AtomicU64,
    double: AtomicU64,
    share: AtomicU64,
}

impl Key {
    /// No key: every read is the default. What an empty `runtime_key` means.
    pub const NONE: Self = Self(None);

    /// The key's name; empty for [`Key::NONE`].
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("", |slot| &*slot.name)
    }

    /// A whole number, or `default`.
    #[inline]
    pub fn integer(&self, default: u64) -> u64 {
        self.read(INTEGER)
            .map_or(default, |s| s.integer.load(Ordering::Relaxed))
    }

    /// A number, or `default`.
    #[inline]
    pub fn double(&self, default: f64) -> f64 {
        self.read(DOUBLE)
            .map_or(default, |s| f64::from_bits(s.double.load(Ordering::Relaxed)))
    }

    /// A truth value, or `default`.
    #[inline]
    pub fn boolean(&self, default: bool) -> bool {
        match &self.0 {
            None => default,
            Some(slot) => match slot.known.load(Ordering::Acquire) {
                known if known & BOOLEAN == 0 => default,
                known => known & TRUE != 0,
            },
        }
    }

    /// A share of requests, or `default`.
    #[inline]
    pub fn share(&self, default: FractionalPercent) -> FractionalPercent {
        self.read(SHARE).map_or(default, |s| {
            let packed = s.share.load(Ordering::Relaxed);
            FractionalPercent::new((packed >> 32) as u32, packed as u32)
        })
    }

    /// Whether the request with this random number belongs to a whole percentage of all.
    #[inline]
    pub fn percent_feature(&self, default: u64, random: u64) -> bool {
        random % 100 < self.integer(default).min(100)
    }

    #[inline]
    fn read(&self, what: u8) -> Option<&Slot> {
        self.0
            .as_deref()
            .filter(|slot| slot.known.load(Ordering::Acquire) & what != 0)
    }
}

impl Slot {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            known: AtomicU8::new(0),
            integer: AtomicU64::new(0),
            double: AtomicU64::new(0),
            share: AtomicU64::new(0),
        }
    }

    fn set(&self, entry: Option<&Entry>) {
        let mut known = 0;
        if let Some(entry) = entry {
            if let Some(integer) = entry.integer {
                self.integer.store(integer, Ordering::Relaxed);
                known |= INTEGER;
            }
            if let Some(double) = entry.double {
                self.double.store(double.to_bits(), Ordering::Relaxed);
                known |= DOUBLE;
            }
            if let Some(share) = entry.share() {
                let packed = u64::from(share.numerator()) << 32 | u64::from(share.denominator());
                self.share.store(packed, Ordering::Relaxed);
                known |= SHARE;
            }
            if let Some(boolean) = entry.boolean {
                known |= if boolean { BOOLEAN | TRUE } else { BOOLEAN };
            }
        }
        self.known.store(known, Ordering::Release);
    }
}

/// The keys somebody holds.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Interned>);

#[derive(Debug, Default)]
struct Interned {
    slots: HashMap<Arc<str>, Weak<Slot>>,
    /// Keys that nobody holds any more are dropped when there are twice as many as were left the last time.
    sweep_at: usize,
}

impl Keys {
    /// The key of this name, with its value as `current` says. An empty name is no key.
    pub(super) fn intern(&self, name: &str, current: impl FnOnce() -> Arc<Snapshot>) -> Key {
        if name.is_empty() {
            return Key::NONE;
        }
        let mut interned = self.lock();
        if let Some(slot) = interned.slots.get(name).and_then(Weak::upgrade) {
            return Key(Some(slot));
        }
        if interned.slots.len() >= interned.sweep_at {
            interned.slots.retain(|_, slot| slot.strong_count() > 0);
            interned.sweep_at = (interned.slots.len() * 2).max(64);
        }
        let name: Arc<str> = name.into();
        let slot = Arc::new(Slot::new(name.clone()));
        slot.set(current().get(&name));
        interned.slots.insert(name, Arc::downgrade(&slot));
        Key(Some(slot))
    }

    /// Publishes a snapshot, and with it the value of every key.
    pub(super) fn publish(&self, snapshot: &Snapshot, publish: impl FnOnce()) {
        // Under the lock, so that a key that is interned meanwhile misses nothing.
        let interned = self.lock();
        publish();
        for slot in interned.slots.values().filter_map(Weak::upgrade) {
            slot.set(snapshot.get(&slot.name));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Interned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
