//! `envoy.transport_sockets.upstream_proxy_protocol`: tells the upstream who the client is, before anything else.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::io::AsyncWriteExt;
use xds_protos::{
    envoy::{
        config::core::v3::{
            ProxyProtocolConfig, ProxyProtocolPassThroughTlVs as PassThroughProto, TlvEntry,
            proxy_protocol_config::Version, proxy_protocol_pass_through_tl_vs::PassTlVsMatchType,
        },
        extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport as Proto,
    },
    google::protobuf::Any,
};

use super::{ClientTransport, TransportCx, TransportOptions, TransportSocket, transport_socket::Connected};
use crate::{
    config::{BuildCx, ConfigResult, unpack},
    http::{StreamInfo, stream_info::ProxyData},
    net::{Address, Stream, proxy_protocol},
    stats::Scope,
    tls::HandshakeError,
};

type Tlv = (u8, Bytes);

/// The transport socket: a header, and another socket behind it.
#[derive(Debug)]
pub(super) struct UpstreamProxyProtocol {
    version: Version,
    /// None: all.
    pass: Option<Vec<u8>>,
    added: Vec<Tlv>,
    inner: TransportSocket,
}

impl UpstreamProxyProtocol {
    /// Builds it with the socket it wraps.
    pub(super) fn build(any: &Any, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = unpack::<Proto>(any, cx)?;
        coverage!(cx, proto => Proto {
            supported { config, transport_socket }
            ignored {
                allow_unspecified_address: "a header without addresses says that they are unknown",
                tlv_as_pool_key: "connections are always told apart by their TLVs",
            }
        });
        let config = config.unwrap_or_default();
        let version = config.version();
        let (pass, added) = cx.field("config", |cx| {
            coverage!(cx, config => ProxyProtocolConfig { supported { version, pass_through_tlvs, added_tlvs } });
            let _ = version;
            let pass = cx.opt("pass_through_tlvs", pass_through_tlvs, |proto, cx| {
                let kind = proto.match_type();
                coverage!(cx, proto => PassThroughProto { supported { match_type, tlv_type } });
                let _ = match_type;
                Ok(match kind {
                    PassTlVsMatchType::IncludeAll => None,
                    PassTlVsMatchType::Include => Some(tlv_type.into_iter().map(tlv).collect()),
                })
            })?;
            let added = cx.each("added_tlvs", added_tlvs, |proto, cx| {
                coverage!(cx, proto => TlvEntry {
                    supported { r#type, value }
                    rejected { format_string: "formatted TLVs" }
                });
                Ok((tlv(r#type), Bytes::from(value)))
            })?;
            // Without the field nothing is passed through.
            Ok((pass.unwrap_or_else(|| Some(Vec::new())), added))
        })?;
        if transport_socket.is_none() {
            return Err(cx.error_at("transport_socket", "value is required"));
        }
        let inner = cx.field("transport_socket", |cx| {
            TransportSocket::build(transport_socket, scope, cx)
        })?;
        Ok(Self {
            version,
            pass,
            added,
            inner,
        })
    }

    fn header(&self, proxy: Option<&ProxyData>, of_host: &[Tlv], own: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
        let addresses = |p: &ProxyData| match (&p.source, &p.destination) {
            (Address::Ip(from), Address::Ip(to)) => Some((*from, *to)),
            _ => None,
        };
        match self.version {
            Version::V1 => proxy_protocol::write_v1(match proxy {
                Some(proxy) => addresses(proxy),
                None => own,
            }),
            Version::V2 => {
                // The endpoint's come before those of the configuration, and both before what is passed on.
                let has = |tlvs: &[Tlv], kind: u8| tlvs.iter().any(|(k, _)| *k == kind);
                let added = self.added.iter().filter(|(kind, _)| !has(of_host, *kind));
                let passed = proxy.map_or(&[][..], |p| &p.tlvs).iter().filter(|(kind, _)| {
                    self.pass.as_ref().is_none_or(|kinds| kinds.contains(kind))
                        && !has(&self.added, *kind)
                        && !has(of_host, *kind)
                });
                let tlvs = of_host.iter().chain(added).chain(passed);
                let tlvs = tlvs.map(|(kind, value)| (*kind, &value[..]));
                proxy_protocol::write_v2(proxy.and_then(addresses), tlvs)
            }
        }
    }
}

impl ClientTransport for UpstreamProxyProtocol {
    fn connect<'a>(&'a self, mut stream: Stream, cx: TransportCx<'a>) -> LocalBoxFuture<'a, Connected> {
        Box::pin(async move {
            let own = match &stream {
                Stream::Tcp(s) => s.local_addr().ok().zip(s.peer_addr().ok()),
                _ => None,
            };
            let attributes = cx.host.attributes().clone();
            let of_host = attributes.transport.as_ref().map_or(&[][..], |t| &t.tlvs);
            let header = self.header(cx.options.and_then(|o| o.proxy.as_deref()), of_host, own);
            stream
                .write_all(&header)
                .await
                .map_err(|e| HandshakeError(e.to_string()))?;
            let stats = cx.cluster.stats.local();
            stats.upstream_cx_tx_bytes_total.add(header.len() as u64);
            self.inner.connect(stream, cx).await
        })
    }

    fn inner(&self) -> Option<&TransportSocket> {
        Some(&self.inner)
    }

    fn speaks_proxy_protocol(&self) -> bool {
        true
    }
}

impl TransportOptions {
    /// The options with what is known of the client: what a PROXY protocol header said, or else its addresses.
    pub fn with_proxy(options: Option<Arc<Self>>, info: &StreamInfo) -> Option<Arc<Self>> {
        let proxy = ProxyData::told(info).unwrap_or_else(|| ProxyData::of_client(info));
        Self::with_proxy_data(options, proxy)
    }

    /// The options with what a PROXY protocol header is to say.
    pub fn with_proxy_data(options: Option<Arc<Self>>, proxy: ProxyData) -> Option<Arc<Self>> {
        let options = options.map(|o| Self::clone(&o)).unwrap_or_default();
        Some(Arc::new(Self {
            proxy: Some(Arc::new(proxy)),
            ..options
        }))
    }
}

// The API's rules have checked the range.
fn tlv(kind: u32) -> u8 {
    u8::try_from(kind).unwrap_or(u8::MAX)
}
