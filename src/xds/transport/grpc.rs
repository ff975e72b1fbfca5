//! gRPC streams over a cluster: opening one, sending on it, reading from it, waiting before the next.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming, client::GrpcService, codegen::StdError};
use tonic_prost::ProstCodec;
use xds_protos::prost::Message;

use crate::{server::Worker, xds::source::GrpcTarget};

/// Envoy has no limit of its own; this one only keeps a broken length from taking the memory.
const MAX_MESSAGE: usize = 512 << 20;

/// A stream's life: waiting, open, waiting.
pub(in crate::xds) enum Link<Req, Resp> {
    /// Until the time for the next attempt.
    Waiting(LocalBoxFuture<'static, ()>),
    /// Requests can be sent; the server may take its time to answer the first.
    Open {
        requests: mpsc::UnboundedSender<Req>,
        responses: Responses<Resp>,
    },
}

pub(in crate::xds) type Opening<Resp> = LocalBoxFuture<'static, Result<Streaming<Resp>, Status>>;

pub(in crate::xds) enum Responses<Resp> {
    Opening(Opening<Resp>),
    Streaming(Box<Streaming<Resp>>),
}

/// What happened on a link.
pub(in crate::xds) enum Event<Resp> {
    /// Time to open a stream.
    Due,
    /// A response.
    Message(Box<Resp>),
    /// The stream ended.
    Closed(Status),
}

impl<Req: Message + Send + 'static, Resp: Message + Default + Send + 'static> Link<Req, Resp> {
    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Event<Resp> {
        loop {
            match self {
                Self::Waiting(due) => {
                    due.as_mut().await;
                    return Event::Due;
                }
                Self::Open { responses, .. } => match responses {
                    Responses::Opening(opening) => match opening.await {
                        Ok(streaming) => *responses = Responses::Streaming(Box::new(streaming)),
                        Err(status) => return Event::Closed(status),
                    },
                    Responses::Streaming(streaming) => {
                        return match streaming.message().await {
                            Ok(Some(message)) => Event::Message(Box::new(message)),
                            Ok(None) => Event::Closed(Status::ok("")),
                            Err(status) => Event::Closed(status),
                        };
                    }
                },
            }
        }
    }

    /// Opens a stream of `path` on the cluster of `target`.
    pub fn open(worker: &Rc<Worker>, target: &GrpcTarget, path: &'static str) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let outgoing = UnboundedReceiverStream::new(receiver);
        let responses = Responses::Opening(super::dial::open(worker, target, path, outgoing));
        Self::Open { requests, responses }
    }
}

/// Opens a bidirectional stream over any channel.
pub(super) async fn stream<T, Req, Resp>(
    channel: T,
    target: GrpcTarget,
    path: &'static str,
    outgoing: UnboundedReceiverStream<Req>,
) -> Result<Streaming<Resp>, Status>
where
    T: GrpcService<tonic::body::Body>,
    T::ResponseBody: http_body::Body + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError>,
    Req: Message + Send + 'static,
    Resp: Message + Default + Send + 'static,
{
    let mut client = tonic::client::Grpc::with_origin(channel, origin(&target))
        .max_decoding_message_size(target.max_message.unwrap_or(MAX_MESSAGE));
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(e.into().to_string()))?;
    let mut request = Request::new(outgoing);
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(target.metadata.into_iter().collect());
    let codec = ProstCodec::<Req, Resp>::default();
    let response = client
        .streaming(request, PathAndQuery::from_static(path), codec)
        .await?;
    Ok(response.into_inner())
}

/// `:authority` is the configured one or the cluster's name, as Envoy sends it.
fn origin(target: &GrpcTarget) -> http::Uri {
    let build = |authority: &str| {
        http::Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query("/")
            .build()
    };
    build(target.authority.as_deref().unwrap_or(&target.cluster))
        .or_else(|_| build("xds"))
        .unwrap_or_default()
}
