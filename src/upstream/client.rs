//! Side calls over a cluster: an adapter that makes a cluster of the current thread's worker a `tower::Service`, on
//! which tonic's generated clients run (xDS, rate limit, external authorization, logs).

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use send_wrapper::SendWrapper;

use super::{LbContext, PoolOptions, UpstreamBody};
use crate::{
    http::{Body, BodyError, RequestHead, Scheme},
    server::Worker,
    stats::Charge,
};

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Marks a request as the proxy's own, as Envoy's are: from inside, and so long waited for.
pub fn mark_own(headers: &mut HeaderMap, timeout: Option<Duration>) {
    headers.insert(INTERNAL, HeaderValue::from_static("true"));
    if let Some(timeout) = timeout {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }
}

/// How the answers to the proxy's own requests count.
const OWN: Charge = Charge {
    internal: true,
    canary: false,
    completed_only: false,
};

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Why a side call got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// There is no such cluster (yet).
    #[error("unknown cluster '{0}'")]
    UnknownCluster(Arc<str>),
    /// The cluster has no host to send to.
    #[error("no healthy upstream in cluster '{0}'")]
    NoHealthyUpstream(Arc<str>),
    /// No connection, or it broke.
    #[error("{0}")]
    Upstream(String),
    /// The cluster's answers were read on another thread than its requests were sent from.
    #[error("a response body left its thread")]
    WrongThread,
}

/// A cluster as a client's transport. Looks the cluster up at every call, so it survives its updates.
#[derive(Clone)]
pub struct ClusterChannel {
    worker: Rc<Worker>,
    cluster: Arc<str>,
    /// `:authority` of the requests.
    authority: HeaderValue,
}

impl ClusterChannel {
    /// A channel over `cluster`; `authority` is the cluster's name unless given, as for Envoy's gRPC clients.
    pub fn new(worker: Rc<Worker>, cluster: impl Into<Arc<str>>, authority: Option<&str>) -> Self {
        let cluster = cluster.into();
        let text = authority.filter(|a| !a.is_empty()).unwrap_or(&cluster);
        Self {
            authority: HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("envoy")),
            worker,
            cluster,
        }
    }

    /// Sends one request.
    pub async fn send(&self, head: RequestHead, body: Body) -> Result<super::UpstreamResponse, ChannelError> {
        let cluster = self
            .worker
            .clusters
            .get(&self.cluster)
            .ok_or_else(|| ChannelError::UnknownCluster(self.cluster.clone()))?;
        // The answers of gRPC are told by their trailers, which whoever reads them sees.
        let counted = !is_grpc(&head.headers);
        let charge = |status: StatusCode| {
            if counted {
                cluster.info.codes.charge_as(status.as_u16(), OWN);
            }
        };
        let Some(host) = cluster.pick(&LbContext::default()) else {
            charge(StatusCode::SERVICE_UNAVAILABLE);
            return Err(ChannelError::NoHealthyUpstream(self.cluster.clone()));
        };
        let sent = async {
            let lease = cluster.http(&host, &PoolOptions::default()).acquire().await;
            let lease = lease.map_err(|e| ChannelError::Upstream(e.to_string()))?;
            let answer = lease.send(head, body, &mut |_| {}).await;
            answer.map_err(|e| ChannelError::Upstream(e.to_string()))
        };
        let answer = sent.await;
        charge(
            answer
                .as_ref()
                .map_or(StatusCode::SERVICE_UNAVAILABLE, |a| a.head.status),
        );
        answer
    }

    /// Counts a request that was given up because its time was over.
    pub fn timed_out(&self) {
        if let Some(cluster) = self.worker.clusters.get(&self.cluster) {
            cluster.info.stats.local().upstream_rq_timeout.inc();
            cluster.info.codes.charge_as(StatusCode::GATEWAY_TIMEOUT.as_u16(), OWN);
        }
    }

    fn head(&self, parts: http::request::Parts) -> RequestHead {
        RequestHead {
            method: parts.method,
            scheme: Scheme::Http,
            authority: Some(self.authority.clone()),
            path: parts.uri.path_and_query().cloned().map(Into::into),
            protocol: None,
            version: parts.version,
            headers: parts.headers,
            spelling: None,
        }
    }
}

impl tower_service::Service<Request<tonic::body::Body>> for ClusterChannel {
    type Response = Response<ChannelBody>;
    type Error = ChannelError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = Body::boxed(body.map_err(|status| BodyError::Other(Box::new(status))));
            let answer = channel.send(channel.head(parts), body).await?;
            let mut response = Response::new(ChannelBody(SendWrapper::new(answer.body)));
            *response.status_mut() = answer.head.status;
            *response.version_mut() = answer.head.version;
            *response.headers_mut() = answer.head.headers;
            Ok(response)
        })
    }
}

/// A response body that tonic may hold: it asks for `Send`, though nothing here ever leaves its thread.
pub struct ChannelBody(SendWrapper<UpstreamBody>);

impl HttpBody for ChannelBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if !self.0.valid() {
            let error = tonic::Status::internal(ChannelError::WrongThread.to_string());
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut *self.0)
            .poll_frame(cx)
            .map_err(|e| tonic::Status::unavailable(e.to_string()))
    }

    fn is_end_stream(&self) -> bool {
        self.0.valid() && self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.valid() {
            self.0.size_hint()
        } else {
            SizeHint::default()
        }
    }
}
