//! From a client to its upstream: the choice of a cluster and a host, and as many attempts as are allowed.

use std::{pin::pin, rc::Rc, sync::Arc};

use http::Version;

use super::{
    CLUSTER,
    alarm::Alarm,
    choice,
    client::{Client, Did},
    config::OnDemandSource,
    session::{InitFailure, Session},
    tunnel::{Tunneling, without_half_close},
};
use crate::{
    http::{Flag, RequestHead, codec::TunnelEnd, stream_info::SharedObjects},
    net::{Deadline, Stream},
    server::Worker,
    upstream::{
        ConnectFailure, Demanded, Host, HostResult, LbContext, PoolOptions, ResourcePriority, TcpCounted,
        TransportOptions, TunnelFailure, UpstreamConnInfo, UpstreamFailure, WorkerCluster,
    },
};

/// A connection to the upstream.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) kind: Kind,
}

/// What carries it.
pub(super) enum Kind {
    /// A connection of its own.
    Plain(TcpCounted),
    /// A tunnel, whose end tells more.
    Tunnel(Arc<TunnelEnd>),
}

/// How an attempt ended.
enum Attempt {
    Opened(Opened),
    /// Another one may be made.
    Failed(Rc<WorkerCluster>),
    /// No other attempt can help, or nobody waits any more.
    Over,
}

/// A session whose client waits.
pub(super) struct Connecting<'a> {
    pub(super) session: &'a mut Session,
    pub(super) alarm: &'a mut Alarm,
    pub(super) client: &'a mut Client,
    pub(super) worker: &'a Rc<Worker>,
}

impl Connecting<'_> {
    /// Connects; none when that cannot be, or the connection has ended meanwhile.
    pub(super) async fn run(mut self) -> Option<Opened> {
        let opened = self.attempts().await;
        if opened.is_none() {
            // It was received, though nobody got it.
            self.session.progress.forward.set(self.client.early.len() as u64);
        }
        opened
    }

    async fn attempts(&mut self) -> Option<Opened> {
        let config = self.session.config.clone();
        if config.waits_for_data && !self.first_data().await {
            return None;
        }
        let mut backoff = config.backoff;
        loop {
            let cluster = match self.attempt().await {
                Attempt::Opened(opened) => return Some(opened),
                Attempt::Over => return None,
                Attempt::Failed(cluster) => cluster,
            };
            if self.session.info.upstream.attempts >= config.max_connect_attempts {
                cluster.info.stats.local().upstream_cx_connect_attempts_exceeded.inc();
                self.session.info.flags.set(Flag::UpstreamRetryLimitExceeded);
                self.session.failed(InitFailure::ConnectFailed);
                return None;
            }
            if let Some(backoff) = &mut backoff {
                let pause = backoff.next();
                self.wait(Deadline::after(pause)).await?;
            }
        }
    }

    /// Waits for `future` as long as the client and the clock let it.
    async fn wait<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let Self {
            session, alarm, client, ..
        } = self;
        let (config, progress) = (session.config.clone(), session.progress.clone());
        let mut future = pin!(future);
        loop {
            let rang = tokio::select! {
                biased;
                output = future.as_mut() => return Some(output),
                () = client.leaves(config.stats.local()) => return None,
                rang = alarm.next(&progress) => rang,
            };
            if !session.rang(rang) {
                return None;
            }
        }
    }

    /// Waits for the client to speak. One that ends without a word waits for nothing but the clock.
    async fn first_data(&mut self) -> bool {
        let Self {
            session, alarm, client, ..
        } = self;
        let (config, progress) = (session.config.clone(), session.progress.clone());
        loop {
            let rang = tokio::select! {
                biased;
                did = client.does(config.stats.local()) => match did {
                    Did::Send => return true,
                    Did::End => continue,
                    Did::Leave => return false,
                },
                rang = alarm.next(&progress) => rang,
            };
            if !session.rang(rang) {
                return false;
            }
        }
    }

    async fn attempt(&mut self) -> Attempt {
        let config = self.session.config.clone();
        let of_connection = {
            let state = self.session.info.connection.filter_state.borrow();
            let named = state.get(CLUSTER).and_then(|object| object.as_text());
            named.map(|name| Arc::<str>::from(&*name))
        };
        let (name, metadata_match) = match of_connection {
            Some(name) => (name, &config.clusters.metadata_match),
            None => {
                let chosen = config.clusters.choose(fastrand::u64(..));
                (chosen.name.clone(), &chosen.metadata_match)
            }
        };
        self.session.info.upstream.cluster = Some(name.clone());
        if let Some(on_demand) = &config.on_demand
            && self.worker.clusters.get(&name).is_none()
        {
            let worker = self.worker.clone();
            if self.wait(demand(on_demand, &name, &worker)).await.is_none() {
                return Attempt::Over;
            }
        }
        let session = &mut *self.session;
        let Some(cluster) = self.worker.clusters.get(&name) else {
            session.stats().downstream_cx_no_route.inc();
            session.info.flags.set(Flag::NoClusterFound);
            session.failed(InitFailure::NoRoute);
            return Attempt::Over;
        };
        session.info.upstream.cluster_observability_name = Some(cluster.info.observability_name.clone());
        let breakers = cluster.info.resources(ResourcePriority::Default);
        if !breakers.connections.can_create() {
            cluster.info.stats.local().upstream_cx_overflow.inc();
            session.info.flags.set(Flag::UpstreamOverflow);
            session.failed(InitFailure::ResourceLimitExceeded);
            return Attempt::Over;
        }
        let host = cluster.pick(&LbContext {
            info: Some(&session.info),
            metadata_match: choice::criteria(metadata_match.as_deref(), &session.info.connection).as_deref(),
            hash: config.hash.as_ref().and_then(|h| h.hash(&session.info.connection)),
            ..LbContext::default()
        });
        let Some(host) = host else {
            session.info.flags.set(Flag::NoHealthyUpstream);
            session.failed(InitFailure::NoHealthyUpstream);
            return Attempt::Over;
        };
        let upstream = &mut session.info.upstream;
        if let Some(previous) = upstream.host.replace(host.clone()) {
            upstream.earlier_hosts.push(previous);
        }
        upstream.attempts += 1;
        // Here every host that was chosen counts.
        upstream.connected = true;
        let options = self.options(&cluster);
        let opened = match &config.tunneling {
            Some(tunneling) if tunneling.applies(&self.session.info.connection) => {
                self.tunnel(tunneling, &cluster, &host, &options).await
            }
            _ => self.connect(&cluster, &host, &options).await,
        };
        match opened {
            None => Attempt::Over,
            Some(Ok(opened)) => {
                cluster.report(&host, HostResult::Served);
                Attempt::Opened(opened)
            }
            Some(Err(failure)) => {
                self.note_failure(&cluster, &host, failure);
                Attempt::Failed(cluster)
            }
        }
    }

    fn options(&self, cluster: &WorkerCluster) -> PoolOptions {
        let info = &self.session.info;
        let mut transport = TransportOptions::of_filter_state(info).wanted();
        if cluster.info.sockets.speaks_proxy_protocol() {
            transport = TransportOptions::with_proxy_data(transport, self.session.config.tlvs.header(info));
        }
        PoolOptions {
            transport,
            connection: Some(info.connection.id),
            source: info.original_source.or(info.connection.original_source),
            shared: SharedObjects::of(&info.filter_state, &info.connection.filter_state.borrow()),
            ..PoolOptions::default()
        }
    }

    /// A connection of its own.
    async fn connect(
        &mut self,
        cluster: &Rc<WorkerCluster>,
        host: &Arc<Host>,
        options: &PoolOptions,
    ) -> Option<Result<Opened, Failure>> {
        let lease = match self.wait(cluster.tcp(host, options)).await? {
            Ok(lease) => lease,
            Err(failure) => return Some(Err(Failure::Connect(failure))),
        };
        self.note_connection(&lease.conn);
        let owner = cluster.owner(host);
        self.session.upstream = Some(owner.as_ref().unwrap_or(cluster).info.clone());
        Some(Ok(Opened {
            stream: lease.stream,
            kind: Kind::Plain(lease.counted),
        }))
    }

    /// A tunnel over a connection that others may share.
    async fn tunnel(
        &mut self,
        tunneling: &Tunneling,
        cluster: &Rc<WorkerCluster>,
        host: &Arc<Host>,
        options: &PoolOptions,
    ) -> Option<Result<Opened, Failure>> {
        let pool = cluster.http(host, options);
        if pool.is_refused() {
            return Some(Err(Failure::Connect(ConnectFailure::Overflow)));
        }
        let lease = match self.wait(pool.acquire()).await? {
            Ok(lease) => lease,
            Err(failure) => return Some(Err(Failure::Connect(failure))),
        };
        let secure = cluster.info.sockets.for_host(host).is_secure();
        let Some(head) = tunneling.request(&mut self.session.info, secure) else {
            return Some(Err(Failure::Request));
        };
        let connects = is_connect(&head);
        let Some(opened) = self.wait(lease.tunnel(head)).await else {
            // Whoever waited for the answer did so in vain.
            self.session.info.flags.set(Flag::UpstreamConnectionFailure);
            return None;
        };
        let connection = self.session.info.connection.clone();
        let opened = match opened {
            Ok(opened) => opened,
            Err(TunnelFailure::Refused(head)) => {
                tunneling.answered(&head, &connection);
                return Some(Err(Failure::Refused(head.status.as_u16())));
            }
            Err(TunnelFailure::Failed(failure)) => return Some(Err(Failure::Tunnel(failure))),
        };
        tunneling.answered(&opened.head, &connection);
        self.note_connection(&opened.conn);
        let http1 = opened.conn.protocol < Version::HTTP_2;
        Some(Ok(Opened {
            stream: match http1 && connects {
                true => without_half_close(opened.stream),
                false => opened.stream,
            },
            kind: Kind::Tunnel(opened.end),
        }))
    }

    fn note_connection(&mut self, conn: &UpstreamConnInfo) {
        let upstream = &mut self.session.info.upstream;
        upstream.local_address = Some(conn.local_address.clone());
        upstream.remote_address = Some(conn.remote_address.clone());
        upstream.tls.clone_from(&conn.tls);
        upstream.connection_id = Some(conn.id);
        upstream.found.clone_from(&conn.found);
    }

    fn note_failure(&mut self, cluster: &Rc<WorkerCluster>, host: &Arc<Host>, failure: Failure) {
        let info = &mut self.session.info;
        // A full queue, and what fails on this side, leaves no flag of its own.
        if failure.is_remote() {
            cluster.report(host, HostResult::Failed);
            info.flags.set(Flag::UpstreamConnectionFailure);
        }
        info.upstream.transport_failure = failure.reason();
    }
}

/// Why an attempt failed.
enum Failure {
    Connect(ConnectFailure),
    /// The tunnel's request cannot be written.
    Request,
    /// The upstream answered with this status instead.
    Refused(u16),
    Tunnel(UpstreamFailure),
}

impl Failure {
    fn is_remote(&self) -> bool {
        match self {
            Self::Connect(failure) | Self::Tunnel(UpstreamFailure::Connect(failure)) => {
                !matches!(failure, ConnectFailure::Local { .. }) && !failure.is_overflow()
            }
            Self::Request => false,
            Self::Refused(_) | Self::Tunnel(_) => true,
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    fn reason(&self) -> Option<String> {
        match self {
            Self::Connect(failure) => failure.transport_failure_reason().map(str::to_owned),
            Self::Tunnel(failure) => failure.transport_failure_reason().map(str::to_owned),
            Self::Refused(status) => Some(format!("tunnel_response:{status}")),
            Self::Request => None,
        }
    }
}

fn is_connect(head: &RequestHead) -> bool {
    head.method == http::Method::CONNECT
}

/// Waits for a cluster that is not there yet.
async fn demand(source: &OnDemandSource, name: &str, worker: &Rc<Worker>) {
    let stats = source.stats.local();
    stats.on_demand_cluster_attempt.inc();
    match source.clusters.demand(name, worker).await {
        Demanded::Found => stats.on_demand_cluster_success.inc(),
        Demanded::Missing => stats.on_demand_cluster_missing.inc(),
        Demanded::TimedOut => stats.on_demand_cluster_timeout.inc(),
    }
}
