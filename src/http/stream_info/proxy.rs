//! What a PROXY protocol header said, kept for whoever speaks that protocol to an upstream.

use std::{any::Any, borrow::Cow, collections::BTreeMap};

use bytes::Bytes;

use super::{FilterState, FilterStateObject, StreamInfo};
use crate::net::Address;

/// Addresses and TLVs of a connection in front (Envoy's `ProxyProtocolFilterState`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyData {
    /// The client.
    pub source: Address,
    /// Where it connected to.
    pub destination: Address,
    /// TLVs that may be passed on.
    pub tlvs: Vec<(u8, Bytes)>,
}

impl ProxyData {
    /// Its key in filter state.
    pub const KEY: &str = "envoy.network.proxy_protocol_options";

    /// What a PROXY protocol header said of the client.
    pub fn told(info: &StreamInfo) -> Option<Self> {
        let data = |state: &FilterState| state.get(Self::KEY)?.as_any().downcast_ref::<Self>().cloned();
        data(&info.filter_state).or_else(|| data(&info.connection.filter_state.borrow()))
    }

    /// What is known of the client without one.
    pub fn of_client(info: &StreamInfo) -> Self {
        Self {
            source: info.remote_address().clone(),
            destination: info.connection.local_address.clone(),
            tlvs: Vec::new(),
        }
    }
}

impl FilterStateObject for ProxyData {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Values of TLVs by the keys of their rules.
#[derive(Debug, Clone, Default)]
pub struct ProxyTlvs(pub BTreeMap<String, String>);

impl ProxyTlvs {
    /// Its key in filter state.
    pub const KEY: &str = "envoy.network.proxy_protocol.tlv";
}

impl FilterStateObject for ProxyTlvs {
    /// JSON, as Envoy has it.
    fn as_text(&self) -> Option<Cow<'_, str>> {
        serde_json::to_string(&self.0).ok().map(Cow::Owned)
    }

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.get(name).map(|v| Cow::Borrowed(v.as_str()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
