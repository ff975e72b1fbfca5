//! A peer's workload in filter state, under the names that Istio gives it.

use std::{any::Any, borrow::Cow, cell::OnceCell, rc::Rc, sync::Arc};

use twox_hash::XxHash64;
use xds_protos::google::protobuf::{Struct, Value, value::Kind};

use super::{WorkloadMetadata, node::encode_sorted};
use crate::http::{
    StreamInfo,
    stream_info::{FilterState, FilterStateObject, Finding, Sharing},
};

/// Which of the two peers of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Who asked.
    Downstream,
    /// Who was asked.
    Upstream,
}

/// Set where somebody has looked for a peer, and will not find it.
const NOT_FOUND: &str = "peer_not_found";

impl Peer {
    /// Its name in filter state, where expressions and logs see a message.
    pub fn key(self) -> &'static str {
        match self {
            Self::Downstream => "downstream_peer",
            Self::Upstream => "upstream_peer",
        }
    }

    /// Its other name, where it has fields and is part of an upstream connection's identity.
    fn object_key(self) -> &'static str {
        match self {
            Self::Downstream => "downstream_peer_obj",
            Self::Upstream => "upstream_peer_obj",
        }
    }

    /// Leaves what is known of the peer, under both names.
    pub fn set(self, state: &mut FilterState, workload: Arc<WorkloadMetadata>, sharing: Sharing) {
        let object = |hashable| {
            Rc::new(PeerObject {
                workload: workload.clone(),
                hashable,
                text: OnceCell::new(),
            })
        };
        state.set(self.key().into(), object(false), sharing, false);
        state.set(self.object_key().into(), object(true), sharing, false);
    }

    /// What is known of the peer.
    pub fn get(self, state: &FilterState) -> Option<&Arc<WorkloadMetadata>> {
        let object = state.get(self.key())?.as_any().downcast_ref::<PeerObject>()?;
        Some(&object.workload)
    }

    /// What is known of the peer of a stream: by the stream's filters, the connection's, or those of the connection to
    /// the upstream.
    pub fn of(self, info: &StreamInfo) -> Option<Arc<WorkloadMetadata>> {
        let own = self.get(&info.filter_state).cloned();
        let connection = || self.get(&info.connection.filter_state.borrow()).cloned();
        let upstream = || self.get(&info.upstream.found.as_ref()?.filter_state()).cloned();
        own.or_else(connection).or_else(upstream)
    }

    /// Whether somebody knows the peer, or has given up on it: nothing is to be waited for.
    pub fn is_settled(self, state: &FilterState) -> bool {
        state.get(self.key()).is_some() || state.get(NOT_FOUND).is_some()
    }
}

/// Gives up on finding a peer.
pub fn set_not_found(state: &mut FilterState) {
    state.set(NOT_FOUND.into(), Rc::new(NotFound), Sharing::None, false);
}

/// A peer as network filters find it.
#[derive(Debug)]
pub struct FoundPeer {
    /// Which one.
    pub peer: Peer,
    /// Its workload; none: it will not be found.
    pub workload: Option<Arc<WorkloadMetadata>>,
}

impl Finding for FoundPeer {
    fn leave(&self, state: &mut FilterState) {
        match &self.workload {
            Some(workload) => self.peer.set(state, workload.clone(), Sharing::None),
            None => set_not_found(state),
        }
    }
}

/// A peer's workload as filter state.
#[derive(Debug)]
pub struct PeerObject {
    /// What is known of it.
    pub workload: Arc<WorkloadMetadata>,
    hashable: bool,
    text: OnceCell<String>,
}

impl PeerObject {
    fn text(&self) -> &str {
        self.text.get_or_init(|| self.workload.to_string())
    }
}

impl FilterStateObject for PeerObject {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.text()))
    }

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        self.workload.field(name).map(Cow::Borrowed)
    }

    fn as_json(&self) -> Option<String> {
        let fields = json(&self.workload.to_fields());
        let any = serde_json::json!({ "@type": "type.googleapis.com/google.protobuf.Struct", "value": fields });
        Some(if self.hashable { fields } else { any }.to_string())
    }

    fn as_struct(&self) -> Option<Struct> {
        Some(self.workload.to_fields())
    }

    fn as_bytes(&self) -> Option<Vec<u8>> {
        Some(encode_sorted(&self.workload.to_fields()))
    }

    fn hash(&self) -> Option<u64> {
        self.hashable.then(|| XxHash64::oneshot(0, self.text().as_bytes()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Texts and structs of them, which is all that a workload has.
fn json(fields: &Struct) -> serde_json::Value {
    let value = |value: &Value| match &value.kind {
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::StructValue(inner)) => json(inner),
        _ => serde_json::Value::Null,
    };
    fields.fields.iter().map(|(k, v)| (k.clone(), value(v))).collect()
}

#[derive(Debug)]
struct NotFound;

impl FilterStateObject for NotFound {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        Some("true".into())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
