//! Metadata of endpoints that transport sockets read: a forward proxy, TLVs of PROXY protocol headers.

use bytes::Bytes;
use xds_protos::{
    envoy::config::core::v3::{Address as ProtoAddress, Metadata, PerHostConfig},
    google::protobuf::Any,
    prost::{Message, Name},
};

use crate::{
    config::{AnyExt, BuildCx},
    net::{Address, address_from_proto},
};

const PROXY: &str = "envoy.http11_proxy_transport_socket.proxy_address";
const TLVS: &str = "envoy.transport_sockets.proxy_protocol";

/// What an endpoint says to its transport socket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TransportMetadata {
    /// The forward proxy to go through, of the endpoint or else of its locality.
    pub proxy: Option<Address>,
    /// TLVs for PROXY protocol headers; of several of one kind all are sent.
    pub tlvs: Vec<(u8, Bytes)>,
}

impl TransportMetadata {
    /// Reads the typed metadata of an endpoint; none where there is nothing of it. As in Envoy, what cannot be read
    /// is left out.
    pub fn read(metadata: Option<&Metadata>, cx: &mut BuildCx<'_>) -> Option<Self> {
        let proxy = proxy(metadata, cx);
        let config = metadata.and_then(|m| unpacked::<PerHostConfig>(m.typed_filter_metadata.get(TLVS)?));
        let tlvs: Vec<_> = config.map_or_else(Vec::new, |config| {
            let kinds = config.added_tlvs.into_iter();
            kinds
                .filter_map(|tlv| Some((u8::try_from(tlv.r#type).ok()?, Bytes::from(tlv.value))))
                .collect()
        });
        (proxy.is_some() || !tlvs.is_empty()).then_some(Self { proxy, tlvs })
    }
}

/// The forward proxy that metadata of an endpoint or of a locality names.
pub fn proxy(metadata: Option<&Metadata>, cx: &mut BuildCx<'_>) -> Option<Address> {
    let any = metadata?.typed_filter_metadata.get(PROXY)?;
    let proxy = unpacked::<ProtoAddress>(any).and_then(|proto| address_from_proto(proto, cx).ok());
    if proxy.is_none() {
        tracing::error!("failed to read the address of a forward proxy in the metadata field {PROXY}");
    }
    proxy
}

fn unpacked<M: Message + Name + Default>(any: &Any) -> Option<M> {
    match any.type_name() == M::full_name() {
        true => M::decode(&*any.value).ok(),
        false => None,
    }
}
