//! From a cluster's name to a stream or a request on it: the one place that knows what carries xDS.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::StatusCode;
use http_body_util::{BodyExt, Full, Limited};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_service::Service;
use xds_protos::prost::Message;

use super::grpc::{Opening, stream};
use crate::{server::Worker, upstream::client::ClusterChannel, xds::source::GrpcTarget};

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
    let channel = ClusterChannel::new(worker.clone(), target.cluster.as_str(), target.authority.as_deref());
    Box::pin(stream(channel, target.clone(), path, outgoing))
}

/// One request and its whole answer of at most `limit` bytes.
pub(super) fn request(
    worker: &Rc<Worker>,
    cluster: &str,
    request: http::Request<Bytes>,
    limit: usize,
) -> LocalBoxFuture<'static, Result<(StatusCode, Bytes), String>> {
    let mut channel = ClusterChannel::new(worker.clone(), cluster, None);
    Box::pin(async move {
        let request = request.map(|bytes| tonic::body::Body::new(Full::new(bytes)));
        let response = channel.call(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await;
        Ok((status, body.map_err(|e| e.to_string())?.to_bytes()))
    })
}
