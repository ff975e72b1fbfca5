//! A scripted control plane in this process, and a proxy's control thread before it.

mod ads;
mod delta;
mod files;
mod resources;
mod rest;
mod streams;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex},
};

use tokio::{net::TcpListener, sync::mpsc, task::LocalSet};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use xds_protos::{
    envoy::{
        config::{
            bootstrap::v3::Bootstrap, cluster::v3::Cluster, core::v3::ConfigSource, endpoint::v3::ClusterLoadAssignment,
        },
        service::{
            cluster::v3::cluster_discovery_service_server::{ClusterDiscoveryService, ClusterDiscoveryServiceServer},
            discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
                aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
            },
        },
    },
    google::protobuf::Any,
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::{
    cli::Cli,
    server::{ServerContext, Worker},
};

/// One stream, seen from the control plane.
struct Session<Req, Resp> {
    requests: Streaming<Req>,
    responses: mpsc::UnboundedSender<Result<Resp, Status>>,
}

impl<Req, Resp> Session<Req, Resp> {
    async fn request(&mut self) -> Req {
        self.requests
            .message()
            .await
            .unwrap()
            .expect("the proxy ended the stream")
    }

    fn respond(&self, response: Resp) {
        self.responses.send(Ok(response)).unwrap();
    }

    fn end(self, status: Status) {
        let _ = self.responses.send(Err(status));
    }
}

type Sotw = Session<DiscoveryRequest, DiscoveryResponse>;
type Delta = Session<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

#[derive(Clone)]
struct Plane {
    sotw: mpsc::UnboundedSender<Sotw>,
    delta: mpsc::UnboundedSender<Delta>,
}

struct ControlPlane {
    address: SocketAddr,
    sotw: mpsc::UnboundedReceiver<Sotw>,
    delta: mpsc::UnboundedReceiver<Delta>,
}

impl ControlPlane {
    async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sotw_tx, sotw) = mpsc::unbounded_channel();
        let (delta_tx, delta) = mpsc::unbounded_channel();
        let plane = Plane {
            sotw: sotw_tx,
            delta: delta_tx,
        };
        let server = Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(plane.clone()))
            .add_service(ClusterDiscoveryServiceServer::new(plane))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Self { address, sotw, delta }
    }
}

fn accept<Req, Resp>(
    request: Request<Streaming<Req>>,
    sessions: &mpsc::UnboundedSender<Session<Req, Resp>>,
) -> Response<UnboundedReceiverStream<Result<Resp, Status>>> {
    let (responses, receiver) = mpsc::unbounded_channel();
    let requests = request.into_inner();
    let _ = sessions.send(Session { requests, responses });
    Response::new(UnboundedReceiverStream::new(receiver))
}

type Answers<T> = UnboundedReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Plane {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(accept(request, &self.sotw))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(accept(request, &self.delta))
    }
}

#[tonic::async_trait]
impl ClusterDiscoveryService for Plane {
    type StreamClustersStream = Answers<DiscoveryResponse>;
    type DeltaClustersStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_clusters(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamClustersStream>, Status> {
        Ok(accept(request, &self.sotw))
    }

    async fn delta_clusters(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaClustersStream>, Status> {
        Ok(accept(request, &self.delta))
    }

    async fn fetch_clusters(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("not asked over gRPC"))
    }
}

/// A control thread whose bootstrap is this YAML.
fn proxy(bootstrap: &str) -> Rc<Worker> {
    let bootstrap: Bootstrap = typed(bootstrap, Syntax::Yaml, &LoadOptions::default()).unwrap();
    let cli = Cli::read(["nuncio", "--concurrency", "1"].map(Into::into)).unwrap();
    let server = ServerContext::new(bootstrap, &cli).unwrap();
    let (traffic, _) = mpsc::unbounded_channel();
    let (control, mailbox) = mpsc::unbounded_channel();
    server.mailboxes.open(vec![traffic, control]);
    let worker = Worker::new(1, server);
    let server = &worker.server;
    let resources = server.static_resources.read().unwrap_or_default();
    for cluster in resources.clusters {
        let resource = xds_protos::any::pack(&cluster);
        server.clusters.add_static(cluster, resource, server).unwrap();
    }
    let serving = worker.clone();
    tokio::task::spawn_local(async move { serving.serve(mailbox).await });
    worker
}

/// A proxy with a static cluster `xds` at `address`, and ADS over it in the manner of `api_type`.
fn ads_proxy(address: SocketAddr, api_type: &str) -> Rc<Worker> {
    let worker = proxy(&format!(
        r"
node: {{ id: me, cluster: here }}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}
  - name: plain
    type: STATIC
    load_assignment:
      cluster_name: plain
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}
dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc:
        cluster_name: xds
        retry_policy: {{ retry_back_off: {{ base_interval: 0.001s, max_interval: 0.01s }} }}
",
        address.ip(),
        address.port(),
        address.ip(),
        address.port()
    ));
    start::configure(&worker.server).unwrap();
    worker.server.xds.start();
    worker
}

fn source(yaml: &str) -> ConfigSource {
    typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap()
}

fn ads() -> ConfigSource {
    source("{ ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s }")
}

/// What a handler was told.
#[derive(Debug, PartialEq)]
enum Told {
    Update {
        version: String,
        added: Vec<(String, String)>,
        removed: Vec<String>,
    },
    Failed(FetchFailure),
}

fn update(version: &str, added: &[(&str, &str)], removed: &[&str]) -> Told {
    Told::Update {
        version: version.to_owned(),
        added: added.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        removed: removed.iter().map(|n| (*n).to_owned()).collect(),
    }
}

type OnUpdate = Box<dyn FnMut(&Update, &Arc<ServerContext>) + Send>;

/// Records what it is told, and rejects what is called `bad...`.
struct Recorder {
    prefix: String,
    told: mpsc::UnboundedSender<Told>,
    on_update: Option<OnUpdate>,
}

impl ResourceHandler for Recorder {
    fn stat_prefix(&self) -> String {
        self.prefix.clone()
    }

    fn update(&mut self, update: Update, server: &Arc<ServerContext>) -> Vec<Rejected> {
        if let Some(f) = &mut self.on_update {
            f(&update, server);
        }
        let bad = update.added.iter().filter(|r| r.name.starts_with("bad"));
        let rejected = bad
            .map(|r| Rejected {
                name: r.name.clone(),
                reason: "it is bad".to_owned(),
            })
            .collect();
        let _ = self.told.send(Told::Update {
            version: update.version,
            added: update.added.into_iter().map(|r| (r.name, r.version)).collect(),
            removed: update.removed,
        });
        rejected
    }

    fn failed(&mut self, reason: FetchFailure) {
        let _ = self.told.send(Told::Failed(reason));
    }
}

/// A watch of clusters with the means to see what it is told.
struct Watched {
    guard: WatchGuard,
    told: mpsc::UnboundedReceiver<Told>,
}

impl Watched {
    async fn next(&mut self) -> Told {
        self.told.recv().await.unwrap()
    }

    // What comes next but for failed connections, of which there may be any number.
    async fn next_update(&mut self) -> Told {
        loop {
            match self.next().await {
                Told::Failed(FetchFailure::Connection(_)) => {}
                told => return told,
            }
        }
    }
}

fn watch(worker: &Worker, type_url: &str, source: &ConfigSource, names: Names) -> Watched {
    watch_with(worker, type_url, source, names, None)
}

fn watch_with(
    worker: &Worker,
    type_url: &str,
    source: &ConfigSource,
    names: Names,
    on_update: Option<OnUpdate>,
) -> Watched {
    let (sender, told) = mpsc::unbounded_channel();
    let handler = Recorder {
        prefix: "test.".to_owned(),
        told: sender,
        on_update,
    };
    let server = &worker.server;
    let guard = server.xds.watch(server, type_url, source, names, Box::new(handler));
    Watched { guard, told }
}

fn clusters() -> String {
    xds_protos::type_url::<Cluster>()
}

fn endpoints() -> String {
    xds_protos::type_url::<ClusterLoadAssignment>()
}

fn cluster(name: &str) -> Any {
    xds_protos::any::pack(&Cluster {
        name: name.to_owned(),
        ..Cluster::default()
    })
}

fn assignment(name: &str) -> Any {
    xds_protos::any::pack(&ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        ..ClusterLoadAssignment::default()
    })
}

fn one(name: &str) -> Names {
    Names::One(name.to_owned())
}

fn run<F: Future<Output = ()> + 'static>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limit = std::time::Duration::from_secs(10);
    let limited = async move { tokio::time::timeout(limit, test).await };
    runtime
        .block_on(LocalSet::new().run_until(limited))
        .expect("the test took too long");
}
