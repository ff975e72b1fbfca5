//! What network filters of an upstream connection find out about it (Envoy's upstream filter state).
//!
//! They run inside the connection's byte stream, which some codecs want to be `Send`; who uses the connection reads
//! what they found as filter state.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::FilterState;

/// Something that was found out.
pub trait Finding: fmt::Debug + Send + Sync {
    /// Leaves it in filter state, under its name.
    fn leave(&self, state: &mut FilterState);
}

/// Where one filter leaves what it finds out, once.
#[derive(Debug, Clone, Default)]
pub struct FindingSlot(Arc<OnceLock<Box<dyn Finding>>>);

impl FindingSlot {
    /// Leaves it; what was left before stays.
    pub fn set(&self, finding: impl Finding + 'static) {
        let _ = self.0.set(Box::new(finding));
    }

    /// What was found out so far.
    pub fn get(&self) -> Option<&dyn Finding> {
        self.0.get().map(|found| &**found)
    }
}

/// What the filters of one connection have found out.
#[derive(Debug, Default)]
pub struct Findings(Vec<FindingSlot>);

impl Findings {
    /// Where one more filter leaves what it will find out.
    pub fn slot(&mut self) -> FindingSlot {
        let slot = FindingSlot::default();
        self.0.push(slot.clone());
        slot
    }

    /// A slot that somebody else fills.
    pub fn add(&mut self, slot: FindingSlot) {
        self.0.push(slot);
    }

    /// Everything found out so far.
    pub fn filter_state(&self) -> FilterState {
        let mut state = FilterState::default();
        for found in self.0.iter().filter_map(FindingSlot::get) {
            found.leave(&mut state);
        }
        state
    }
}
