//! The compressors of one stream know of each other, so that exactly one of them compresses.

use std::{
    any::Any,
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
};

use super::{
    accept::{Candidate, Decision, choose},
    config::Config,
};
use crate::http::stream_info::{FilterState, FilterStateObject, Sharing};

/// Name of the filter state.
const NAME: &str = "compressors";

/// The compressors of a stream in the order of the chain, and what was decided.
#[derive(Default)]
struct Registry {
    members: RefCell<Vec<(Arc<Config>, Candidate)>>,
    decision: Cell<Option<Decision>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("decision", &self.decision).finish()
    }
}

impl FilterStateObject for Registry {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn registry(state: &FilterState) -> Option<&Registry> {
    state.get(NAME)?.as_any().downcast_ref()
}

/// Adds a compressor.
pub(super) fn register(state: &mut FilterState, config: Arc<Config>, candidate: Candidate) {
    if registry(state).is_none() {
        state.set(NAME.into(), Rc::new(Registry::default()), Sharing::None, false);
    }
    if let Some(registry) = registry(state) {
        registry.members.borrow_mut().push((config, candidate));
    }
}

/// What is decided for a response of this content type; the first compressor that asks decides for all.
pub(super) fn decide(state: &FilterState, accept: &str, content_type: Option<&[u8]>) -> Decision {
    let Some(registry) = registry(state) else {
        return Decision::NotValid;
    };
    if let Some(decision) = registry.decision.get() {
        return decision;
    }
    let members = registry.members.borrow();
    let for_type = members
        .iter()
        .filter(|(config, _)| config.response.direction.types.allow(content_type));
    let candidates: Vec<_> = for_type.map(|(_, candidate)| *candidate).collect();
    let decision = choose(accept, &candidates);
    registry.decision.set(Some(decision));
    decision
}
