//! Listeners as `/config_dump` shows them.

use std::time::SystemTime;

use xds_protos::google::protobuf::Any;

use super::{ListenerManager, ListenerSnapshot};

/// All listeners, and what was refused of the last update.
pub struct ListenersDump {
    /// Those that serve.
    pub active: Vec<ListenerSnapshot>,
    /// Those that wait.
    pub warming: Vec<ListenerSnapshot>,
    /// Those that end, the newest first.
    pub draining: Vec<ListenerSnapshot>,
    /// What was refused of the last discovery response, in its order.
    pub refused: Vec<RefusedListener>,
}

/// A listener that was refused.
#[derive(Debug, Clone)]
pub struct RefusedListener {
    /// Its name.
    pub name: String,
    /// The resource as it came.
    pub resource: Any,
    /// Why.
    pub details: String,
    /// When.
    pub time: SystemTime,
}

impl ListenerManager {
    /// What there is.
    pub fn dump(&self) -> ListenersDump {
        let state = self.state();
        ListenersDump {
            active: state.active.values().cloned().collect(),
            warming: state.warming.values().map(|w| w.snapshot.clone()).collect(),
            draining: state.draining.iter().map(|d| d.snapshot.clone()).collect(),
            refused: state.refused.clone(),
        }
    }

    /// Notes that a listener of a discovery response was refused.
    pub fn note_refused(&self, name: &str, resource: &Any, details: &str) {
        self.state().refused.push(RefusedListener {
            name: name.to_owned(),
            resource: resource.clone(),
            details: details.to_owned(),
            time: SystemTime::now(),
        });
    }
}
