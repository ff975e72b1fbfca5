//! From a cluster's name to a stream on it: the one place that knows what carries xDS.

use std::rc::Rc;

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
    let clusters = worker
        .server
        .bootstrap
        .static_resources
        .iter()
        .flat_map(|r| &r.clusters);
    let address = clusters.filter(|c| c.name == target.cluster).find_map(first_address);
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
