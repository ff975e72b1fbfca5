//! One gRPC stream and everything watched on it: all types for ADS, one for a stream of its own.
//!
//! Requests are sent only when all that was said so far is known: what a handler subscribes while it applies CDS is
//! asked for in one EDS request after CDS was applied. This is what Envoy's pausing of EDS and RDS is for.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{
    backoff::Backoff,
    close_log::CloseLog,
    handler::FetchFailure,
    rate_limit::RateLimit,
    service,
    source::GrpcSource,
    state::{Delta, Protocol, Sotw},
    stats::ControlPlaneStats,
    transport::grpc::{Event, Link},
    watch::{Attempts, Command, NewWatch, Watch},
    watch_map::{self, WatchMap},
};
use crate::server::{ServerContext, Worker};

/// Runs a stream, again and again, until nobody can watch on it any more. `own` names the type and the statistics'
/// prefix of a stream that is not the aggregated one.
pub(super) async fn run(
    worker: Rc<Worker>,
    source: GrpcSource,
    own: Option<(String, String)>,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    let service = own.as_ref().and_then(|(type_url, _)| service::of(type_url));
    let path = match (source.aggregated, source.delta, service) {
        (true, false, _) => Some(service::ADS_SOTW),
        (true, true, _) => Some(service::ADS_DELTA),
        (false, false, Some(service)) => service.sotw,
        (false, true, Some(service)) => Some(service.delta),
        (false, _, None) => None,
    };
    let Some(path) = path else {
        let type_url = own.map(|(type_url, _)| type_url);
        tracing::error!(?type_url, "there is no discovery service for this type; use ADS");
        return;
    };
    let scope = worker.server.stats.scope(own.as_ref().map_or("", |(_, prefix)| prefix));
    let stats = ControlPlaneStats::new(&scope);
    if source.delta {
        Mux::<Delta>::new(worker, source, path, stats).run(commands).await;
    } else {
        Mux::<Sotw>::new(worker, source, path, stats).run(commands).await;
    }
}

struct Mux<P: Protocol> {
    worker: Rc<Worker>,
    server: Arc<ServerContext>,
    source: GrpcSource,
    path: &'static str,
    stats: ControlPlaneStats,
    // In the order of the first watch of each type, which is the order requests go out in.
    types: Vec<(WatchMap, P)>,
    link: Link<P::Request, P::Response>,
    backoff: Backoff,
    closes: CloseLog,
    rate_limit: Option<RateLimit>,
    // No request went out on this stream yet.
    first: bool,
    // Requests wait for the rate limit until then.
    throttled: Option<Instant>,
}

impl<P: Protocol> Mux<P> {
    fn new(worker: Rc<Worker>, source: GrpcSource, path: &'static str, stats: ControlPlaneStats) -> Self {
        let server = worker.server.clone();
        let opening: LocalBoxFuture<'static, ()> = match source.aggregated {
            true => Box::pin(async move { server.xds.started().await }),
            false => Box::pin(std::future::ready(())),
        };
        Self {
            server: worker.server.clone(),
            worker,
            path,
            stats,
            types: Vec::new(),
            link: Link::Waiting(opening),
            backoff: Backoff::new(source.backoff.0, source.backoff.1),
            closes: CloseLog::new(source.backoff.1),
            rate_limit: source.rate_limit.map(|(tokens, rate)| RateLimit::new(tokens, rate)),
            source,
            first: true,
            throttled: None,
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            self.apply_commands(&mut commands);
            self.send();
            let deadline = self.next_deadline();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.apply_batch(vec![command], &mut commands),
                    None => break,
                },
                event = self.link.next() => self.on_event(event),
                () = due => self.expire(),
            }
        }
        self.stats.block.local().connected_state.set(0);
    }

    // Handlers that run meanwhile may say more; it all belongs to the same moment.
    fn apply_commands(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) {
        while let Ok(command) = commands.try_recv() {
            self.apply_batch(vec![command], commands);
        }
    }

    fn apply_batch(&mut self, mut batch: Vec<Command>, commands: &mut mpsc::UnboundedReceiver<Command>) {
        while let Ok(command) = commands.try_recv() {
            batch.push(command);
        }
        // First what is new: a name whose watch is replaced by another is watched all the time.
        let mut ended = Vec::new();
        for command in batch {
            match command {
                Command::Watch(watch) => self.watch(*watch),
                Command::Unwatch(id) => ended.push(id),
                Command::Resume => {}
                Command::Demand(id, name) => {
                    if let Some((_, state)) = self.types.iter_mut().find(|(map, _)| map.contains(id)) {
                        state.watched(&name, true);
                    }
                }
            }
        }
        for id in ended {
            for (map, state) in &mut self.types {
                if let Some(name) = map.remove(id) {
                    self.server.xds.inventory.forget(&map.type_url, &name);
                    state.unwatched(&name);
                }
            }
        }
    }

    fn watch(&mut self, new: NewWatch) {
        let (id, type_url) = (new.id, new.type_url.clone());
        let name = watch_map::key(&new.names).to_owned();
        let watch = Watch::new(new, Attempts::Events, &self.server);
        let index = match self.types.iter().position(|(map, _)| map.type_url == type_url) {
            Some(index) => index,
            None => {
                self.types.push((WatchMap::new(&type_url), P::default()));
                self.types.len() - 1
            }
        };
        let (map, state) = &mut self.types[index];
        let first = map.add(id, watch, &self.server);
        state.watched(&name, first.is_some());
    }

    fn send(&mut self) {
        self.throttled = None;
        let Link::Open { requests, .. } = &self.link else {
            return;
        };
        let mut waiting = 0;
        for (map, state) in &mut self.types {
            if self.source.aggregated && self.server.xds.paused(&map.type_url) {
                continue;
            }
            while state.wants_to_send(map) {
                if let Some(limit) = &mut self.rate_limit
                    && let Err(at) = limit.take(Instant::now())
                {
                    self.throttled = Some(at);
                    self.stats.block.local().rate_limit_enforced.inc();
                    waiting += 1;
                    break;
                }
                let mut request = state.request(map);
                let node = self.server.node.as_ref().clone();
                P::set_node(&mut request, node, self.first, self.source.node_once);
                self.first = false;
                tracing::trace!(type_url = map.type_url, ?request, "sending");
                // Fails only when the stream is over, of which the responses tell as well.
                let _ = requests.send(request);
            }
        }
        if self.rate_limit.is_some() {
            self.stats.block.local().pending_requests.set(waiting);
        }
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let of_types = self.types.iter_mut().filter_map(|(map, _)| map.next_deadline());
        of_types.chain(self.throttled).min()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for (map, state) in &mut self.types {
            let expired = map.expire(now, &self.server);
            state.expired(&expired);
        }
    }

    fn on_event(&mut self, event: Event<P::Response>) {
        match event {
            Event::Due => {
                self.link = Link::open(&self.worker, &self.source.target, self.path);
                self.first = true;
                self.stats.block.local().connected_state.set(1);
                for (_, state) in &mut self.types {
                    state.opened();
                }
            }
            Event::Message(response) => self.receive(*response),
            Event::Closed(status) => self.closed(&status),
        }
    }

    fn receive(&mut self, response: P::Response) {
        self.backoff.reset();
        self.closes.clear();
        self.stats.block.local().connected_state.set(1);
        if let Some(control_plane) = P::control_plane(&response) {
            self.stats.identified(&control_plane.identifier);
        }
        let type_url = P::type_url(&response);
        match self.types.iter_mut().find(|(map, _)| map.type_url == type_url) {
            Some((map, state)) => state.receive(response, map, &self.server),
            None => tracing::warn!(type_url, "ignoring a response for a type without subscribers"),
        }
    }

    fn closed(&mut self, status: &Status) {
        let wait = self.backoff.wait();
        self.closes.note(self.path, &self.source.target.cluster, status);
        self.stats.block.local().connected_state.set(0);
        self.link = Link::Waiting(Box::pin(tokio::time::sleep(wait)));
        let reason = FetchFailure::Connection(status.message().to_owned());
        for (map, _) in &mut self.types {
            map.failed(&reason);
        }
    }
}
