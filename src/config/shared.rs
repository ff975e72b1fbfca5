//! Values built from equal messages, kept once: the clusters of a control plane say the same of most things, and there
//! may be ten thousand of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{BuildCx, ConfigResult};

/// How many different messages are remembered. Those of one control plane are of a few kinds, and each one more is
/// compared with every message that is new.
const REMEMBERED: usize = 8;

/// Finds what was built from an equal message before, among the last few that still are in use.
///
/// Only for values without state: who shares one must not notice.
pub struct Shared<K, V>(Mutex<VecDeque<(K, Weak<V>)>>);

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + PartialEq, V> Shared<K, V> {
    /// What `message` was built to before, or `build` of it. What leaves something to wait for or to warn about in
    /// `cx`, and what is not `stateless`, is built each time.
    pub fn get_or_build(
        &self,
        message: K,
        cx: &mut BuildCx<'_>,
        stateless: impl FnOnce(&V) -> bool,
        build: impl FnOnce(K, &mut BuildCx<'_>) -> ConfigResult<V>,
    ) -> ConfigResult<Arc<V>> {
        if let Some(found) = self.find(&message) {
            return Ok(found);
        }
        let left = (cx.init.len(), cx.ignored.len());
        let built = Arc::new(build(message.clone(), cx)?);
        if left == (cx.init.len(), cx.ignored.len()) && stateless(&built) {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.truncate(REMEMBERED - 1);
            known.push_front((message, Arc::downgrade(&built)));
        }
        Ok(built)
    }

    fn find(&self, message: &K) -> Option<Arc<V>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, value)| value.strong_count() > 0);
        known.iter().find(|(key, _)| key == message)?.1.upgrade()
    }
}

/// Equal values kept once, among the last few that still are in use.
pub struct Recent<T>(Mutex<VecDeque<Weak<T>>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: PartialEq> Recent<T> {
    /// The value that is equal to this one, or this one.
    pub fn share(&self, value: T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alive = known.iter().filter_map(Weak::upgrade);
        if let Some(found) = alive.find(|v| **v == value) {
            return found;
        }
        let value = Arc::new(value);
        known.truncate(REMEMBERED - 1);
        known.push_front(Arc::downgrade(&value));
        value
    }
}

#[cfg(test)]
mod tests;
