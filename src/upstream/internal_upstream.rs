//! `envoy.transport_sockets.internal_upstream`: what goes along with a connection to an internal listener.

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use xds_protos::{
    envoy::{
        extensions::transport_sockets::internal_upstream::v3::{
            InternalUpstreamTransport as Proto, internal_upstream_transport::MetadataValueSource,
        },
        r#type::metadata::v3::{MetadataKind, metadata_kind::Kind},
    },
    google::protobuf::Any,
};

use super::{
    Host,
    transport_socket::{ClientTransport, Connected, TransportCx, TransportSocket},
};
use crate::{
    config::{BuildCx, ConfigResult, unpack},
    http::stream_info::{Metadata, SharedObjects},
    net::Stream,
    server::Passthrough,
    stats::Scope,
};

/// Whose metadata it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Host,
    Cluster,
}

/// The socket, around another one.
#[derive(Debug)]
pub struct InternalUpstream {
    /// Namespaces that become dynamic metadata of the internal connection.
    metadata: Vec<(Of, String)>,
    inner: TransportSocket,
}

impl InternalUpstream {
    /// Builds the socket and the one it is around.
    pub fn build(any: &Any, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = unpack::<Proto>(any, cx)?;
        coverage!(cx, proto => Proto { supported { passthrough_metadata, transport_socket } });
        Ok(Self {
            metadata: cx.each("passthrough_metadata", passthrough_metadata, source)?,
            inner: cx.required("transport_socket", transport_socket, |s, cx| {
                TransportSocket::build(Some(s), scope, cx)
            })?,
        })
    }
}

fn source(proto: MetadataValueSource, cx: &mut BuildCx<'_>) -> ConfigResult<(Of, String)> {
    coverage!(cx, proto => MetadataValueSource { supported { kind, name } });
    let MetadataKind { kind } = kind.unwrap_or_default();
    let of = match kind {
        Some(Kind::Host(_)) => Of::Host,
        Some(Kind::Cluster(_)) => Of::Cluster,
        other => {
            return Err(cx.error_at("kind", format!("metadata type is not supported: {other:?}")));
        }
    };
    Ok((of, name))
}

impl ClientTransport for InternalUpstream {
    fn connect<'a>(&'a self, stream: Stream, cx: TransportCx<'a>) -> LocalBoxFuture<'a, Connected> {
        Box::pin(self.inner.connect(stream, cx))
    }

    fn inner(&self) -> Option<&TransportSocket> {
        Some(&self.inner)
    }

    fn passthrough(&self, host: &Host, cluster: &Arc<Metadata>, shared: Option<&SharedObjects>) -> Passthrough {
        let attributes = host.attributes();
        let mut metadata = Metadata::default();
        for (of, name) in &self.metadata {
            let from = match of {
                Of::Host => &attributes.metadata,
                Of::Cluster => cluster,
            };
            // Of two sources that have a name, the last one counts.
            if let Some(value) = from.get(name) {
                metadata.insert(name.clone(), value.clone());
            }
        }
        Passthrough {
            metadata,
            filter_state: shared.map(SharedObjects::to_filter_state).unwrap_or_default(),
            told: None,
        }
    }
}
