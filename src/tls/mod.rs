//! TLS both ways: server and client contexts, secrets, peer validation.

use std::sync::Arc;

use tokio::net::TcpStream;
use xds_protos::google::protobuf::Any;

use crate::{
    config::{BuildCx, ConfigResult},
    http::stream_info::TlsInfo,
    net::Stream,
};

/// Why a handshake failed, as `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` and its upstream twin print it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(pub String);

/// A listener's TLS context (`DownstreamTlsContext`): rotates under its connections.
pub struct ServerTls {}

impl ServerTls {
    /// Builds from a `DownstreamTlsContext`; secrets by SDS become init targets of `cx`.
    pub fn build(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let _ = any;
        Err(cx.error("TLS is not built yet"))
    }

    /// Takes the TLS handshake of a client.
    pub async fn accept(&self, stream: TcpStream) -> Result<(Stream, TlsInfo), HandshakeError> {
        drop(stream);
        Err(HandshakeError("TLS is not built yet".into()))
    }
}
