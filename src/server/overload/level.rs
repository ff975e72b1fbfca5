//! A number between 0 and 1 that the control thread writes and workers read.

use std::sync::atomic::{AtomicU32, Ordering};

/// How far an action or a load-shed point is: 0 is idle, 1 saturated, between them it happens by chance.
#[derive(Debug, Default)]
pub struct Level(AtomicU32);

impl Level {
    /// The level now.
    #[inline]
    pub fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Sets it.
    pub fn set(&self, level: f32) {
        self.0.store(level.to_bits(), Ordering::Relaxed);
    }

    /// Whether it happens this time.
    #[inline]
    pub fn happens(&self) -> bool {
        match self.get() {
            0.0 => false,
            level => level >= 1.0 || fastrand::f32() < level,
        }
    }
}
