//! Internal listeners of one worker: where upstream connections to `envoy_internal_address` go.
//!
//! The listener's side registers what accepts; the upstream's side connects by name. Neither knows the other.

use std::{cell::RefCell, collections::HashMap, fmt, rc::Rc, sync::Arc};

use xds_protos::{
    any::{AnyError, inner_type_name, unpack},
    envoy::{config::bootstrap::v3::Bootstrap, extensions::bootstrap::internal_listener::v3::InternalListener},
    prost::Name,
};

use crate::{
    config::{ConfigError, ConfigResult},
    http::stream_info::{FilterState, FindingSlot, Metadata},
    net::{InternalStream, internal_pair},
};

/// `InternalListener.buffer_size_kb` when it is not said.
const BUFFER_KB: u32 = 1024;

/// How many bytes an internal connection holds in each direction, where the bootstrap extension
/// `envoy.bootstrap.internal_listener` is configured; none without it.
///
/// # Errors
/// When the extension's configuration cannot be read.
pub fn internal_buffer(bootstrap: &Bootstrap) -> ConfigResult<Option<usize>> {
    let configs = bootstrap
        .bootstrap_extensions
        .iter()
        .filter_map(|e| e.typed_config.as_ref());
    let refused = |e: AnyError| ConfigError::new("bootstrap_extensions", e.to_string());
    for any in configs {
        if inner_type_name(any).map_err(refused)? == InternalListener::full_name() {
            let InternalListener { buffer_size_kb } = unpack(any).map_err(refused)?;
            let kb = buffer_size_kb.map_or(BUFFER_KB, |v| v.value);
            return Ok(usize::try_from(kb).ok().map(|kb| kb * 1024));
        }
    }
    Ok(None)
}

/// Takes a new connection.
type Accept = Rc<dyn Fn(InternalConnection)>;

/// What an upstream connection brings along for the listener it goes to.
#[derive(Debug, Default, Clone)]
pub struct Passthrough {
    /// `passthrough_metadata`: becomes dynamic metadata.
    pub metadata: Metadata,
    /// Shared objects: become filter state.
    pub filter_state: FilterState,
    /// Where filters of the listener tell the upstream connection what they find out, if it wants to know.
    pub told: Option<FindingSlot>,
}

/// A connection as an internal listener gets it.
#[derive(Debug)]
pub struct InternalConnection {
    /// Its bytes.
    pub stream: InternalStream,
    /// `endpoint_id` of the address that was connected to.
    pub endpoint: Arc<str>,
    /// What comes along.
    pub passthrough: Passthrough,
}

/// The internal listeners of one worker, by name.
#[derive(Default)]
pub struct InternalListeners {
    accept: RefCell<HashMap<Arc<str>, Accept>>,
    buffer: usize,
}

impl fmt::Debug for InternalListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.accept.borrow().keys()).finish()
    }
}

impl InternalListeners {
    /// None yet. `buffer` is how many bytes a connection holds in each direction.
    pub fn new(buffer: usize) -> Self {
        Self {
            accept: RefCell::default(),
            buffer,
        }
    }

    /// Connections to `name` go to `accept` from now on.
    pub fn listen(&self, name: Arc<str>, accept: Accept) {
        self.accept.borrow_mut().insert(name, accept);
    }

    /// `name` takes no more connections.
    pub fn remove(&self, name: &str) {
        self.accept.borrow_mut().remove(name);
    }

    /// Connects; none when no internal listener of this worker has the name.
    pub fn connect(&self, name: &str, endpoint: &Arc<str>, passthrough: Passthrough) -> Option<InternalStream> {
        // Not under the borrow: accepting may run anything.
        let accept = self.accept.borrow().get(name)?.clone();
        let (ours, theirs) = internal_pair(self.buffer);
        accept(InternalConnection {
            stream: theirs,
            endpoint: endpoint.clone(),
            passthrough,
        });
        Some(ours)
    }
}
