//! The connections of health checks: one for each host, apart from the pools of the workers.

use std::{sync::Arc, time::Instant};

use ::http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use super::HealthCheckConfig;
use crate::{
    http::{Body, stream_info::Metadata},
    net::Stream,
    server::InternalListeners,
    upstream::{ClusterInfo, ConnectFailure, Host, TransportOptions, pool},
};

/// Where the checks of a host connect to.
pub struct Target {
    /// The cluster, for its sockets.
    pub cluster: Arc<ClusterInfo>,
    /// The host that is checked.
    pub host: Arc<Host>,
    /// The host as checks see it: with the address and the transport socket that are theirs.
    seen: Host,
    transport: Option<TransportOptions>,
}

impl Target {
    /// The target of a host: `Endpoint.health_check_config` and the check's own criteria say how it differs from it.
    pub fn new(cluster: Arc<ClusterInfo>, host: Arc<Host>, config: &HealthCheckConfig) -> Self {
        let mut attributes = (**host.attributes()).clone();
        let address = attributes.health_check_address.clone();
        if address.is_some() {
            attributes.additional_addresses.clear();
        }
        if let Some(criteria) = &config.socket_match {
            let metadata = Metadata::from_iter([("envoy.transport_socket_match".into(), criteria.clone())]);
            attributes.metadata = Arc::new(metadata);
            attributes.locality_metadata = Arc::default();
        }
        let address = address.unwrap_or_else(|| host.present_address());
        Self {
            seen: Host::new(address, host.hostname.clone(), 1, attributes),
            transport: config.transport.clone(),
            cluster,
            host,
        }
    }

    /// Opens a connection through the cluster's transport socket. The check's timeout is its limit.
    pub async fn connect(&self, alpn: &'static [&'static str]) -> Result<Stream, ConnectFailure> {
        let opened = pool::open(&pool::Dial {
            cluster: &self.cluster,
            host: &self.seen,
            options: self.transport.as_ref(),
            alpn,
            // Checks run where no listener is, as in Envoy.
            internal: &InternalListeners::default(),
            source: None,
            shared: None,
            told: None,
        })
        .await?;
        Ok(opened.0)
    }

    /// `host` and `:authority` of a check: the endpoint's, or `configured`, or the cluster's name.
    pub fn hostname<'a>(&'a self, of_host: &'a str, configured: &'a str) -> &'a str {
        match (of_host, configured) {
            ("", "") => &self.cluster.name,
            ("", configured) => configured,
            (of_host, _) => of_host,
        }
    }

    /// Whether bytes are protected on the way.
    pub fn is_secure(&self) -> bool {
        self.cluster.sockets.for_host(&self.seen).is_secure()
    }
}

/// A connection that carries checks over HTTP.
pub struct Connection {
    sender: Sender,
    task: AbortHandle,
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// Why a check over HTTP got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectFailure),
    /// It broke, or what came over it is no HTTP.
    #[error(transparent)]
    Codec(#[from] hyper::Error),
}

/// Runs the codec's tasks on the control thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

impl Connection {
    /// Connects and starts the codec.
    pub async fn open(target: &Target, h2: bool) -> Result<Self, CheckError> {
        let started = Instant::now();
        let stream = target.connect(&[]).await?;
        tracing::trace!(host = %target.host.address, elapsed = ?started.elapsed(), "health check connected");
        let io = TokioIo::new(stream);
        Ok(if h2 {
            let mut builder = http2::Builder::new(Local);
            builder.timer(TokioTimer::new());
            let (sender, connection) = builder.handshake(io).await?;
            Self::driven(Sender::H2(sender), connection)
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            Self::driven(Sender::H1(sender), connection)
        })
    }

    fn driven<E>(sender: Sender, connection: impl Future<Output = Result<(), E>> + 'static) -> Self {
        let task = tokio::task::spawn_local(async move {
            // What ends it is seen by whoever waits for an answer.
            let _ = connection.await;
        });
        Self {
            sender,
            task: task.abort_handle(),
        }
    }

    /// Whether another check may use it.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => !sender.is_closed(),
            Sender::H2(sender) => !sender.is_closed(),
        }
    }

    /// Sends one request and waits for the head of its response.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, CheckError> {
        Ok(match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
