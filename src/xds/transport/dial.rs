//! From a cluster's name to a stream or a request on it: the one place that knows what carries xDS.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::StatusCode;
use http_body_util::{BodyExt, Full, Limited};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, transport::Endpoint};
use xds_protos::{
    envoy::config::{
        cluster::v3::Cluster,
        core::v3::{address::Address, socket_address::PortSpecifier},
        endpoint::v3::lb_endpoint::HostIdentifier,
    },
    prost::Message,
};

use super::grpc::{Opening, stream};
use crate::{server::Worker, xds::source::GrpcTarget};

/// Opens a stream of `path` on the cluster of `target`, with the connections of this thread's worker.
pub(super) fn open<Req, Resp>(
    worker: &Rc<Worker>,
    target: &GrpcTarget,
    path: &'static str,
    outgoing: UnboundedReceiverStream<Req>,
) -> Opening<Resp>
where
    Req: Message + Send + 'static,
    Resp: Message + Default + Send + 'static,
{
    let address = address(worker, &target.cluster);
    let target = target.clone();
    Box::pin(async move {
        let Some(address) = address else {
            return Err(Status::unavailable(format!("unknown cluster '{}'", target.cluster)));
        };
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|e| Status::internal(e.to_string()))?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        stream(channel, target, path, outgoing).await
    })
}

/// One request and its whole answer of at most `limit` bytes.
pub(super) fn request(
    worker: &Rc<Worker>,
    cluster: &str,
    request: http::Request<Bytes>,
    limit: usize,
) -> LocalBoxFuture<'static, Result<(StatusCode, Bytes), String>> {
    let address = address(worker, cluster).ok_or_else(|| format!("unknown cluster '{cluster}'"));
    Box::pin(async move {
        let stream = tokio::net::TcpStream::connect(address?)
            .await
            .map_err(|e| e.to_string())?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|e| e.to_string())?;
        let exchange = async move {
            let response = sender
                .send_request(request.map(Full::new))
                .await
                .map_err(|e| e.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), limit).collect().await;
            Ok((status, body.map_err(|e| e.to_string())?.to_bytes()))
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // A connection that closes with its answer is done before the answer was read.
            _ = connection => exchange.await,
        }
    })
}

fn address(worker: &Rc<Worker>, cluster: &str) -> Option<String> {
    let clusters = worker
        .server
        .bootstrap
        .static_resources
        .iter()
        .flat_map(|r| &r.clusters);
    clusters.filter(|c| c.name == cluster).find_map(first_address)
}

fn first_address(cluster: &Cluster) -> Option<String> {
    let endpoint = cluster
        .load_assignment
        .as_ref()?
        .endpoints
        .first()?
        .lb_endpoints
        .first()?;
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        return None;
    };
    match endpoint.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(socket) => match socket.port_specifier.as_ref()? {
            PortSpecifier::PortValue(port) => Some(format!("{}:{port}", socket.address)),
            PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    }
}
