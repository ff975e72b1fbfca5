//! Forwarding to a cluster: attempts, until one counts.

use std::{pin::pin, rc::Rc, sync::Arc};

use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    Routed, RouterConfig, Tunnel,
    attempt::{self, Answer},
    body::UpstreamTail,
    failure::Failure,
    headers, mirror,
    replay::Replay,
    retry::{Retry, Verdict},
    timeout, transport,
};
use crate::{
    http::{Body, Flag, LocalReply, RequestHead, codec::Upgrade, filter::FilterCx},
    route::{Priority, RouteAction, RouteMatch},
    upstream::{Dropped, Host, LbContext, ResourcePriority, TransportOptions, WorkerCluster},
};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Forwards the request as `action` says.
pub(super) async fn forward(
    config: &RouterConfig,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    body: Body,
    upgrade: Option<Upgrade>,
    route: &RouteMatch,
    action: &RouteAction,
) -> Result<Routed, Box<LocalReply>> {
    let name = route.cluster_name();
    cx.info.virtual_cluster = route.virtual_cluster(head);
    let Some(cluster) = cx.worker.clusters.get(name) else {
        config.stats.local().no_cluster.inc();
        return Err(Box::new(
            LocalReply::new(action.cluster_not_found, "", "cluster_not_found").flag(Flag::NoClusterFound),
        ));
    };
    cx.info.upstream.cluster = Some(cluster.info.name.clone());
    cx.info.upstream.cluster_observability_name = Some(cluster.info.observability_name.clone());
    headers::strict_check(head, config)?;
    refused(config, cx, &cluster)?;

    let priority = match action.priority {
        Priority::Default => ResourcePriority::Default,
        Priority::High => ResourcePriority::High,
    };
    let limits = timeout::limits(head, action, config);
    let mut retry = Retry::new(action.retry_policy.as_ref(), head, &config.keys);
    let mut request = Request {
        config,
        route,
        action,
        cluster: &cluster,
        priority,
        limits,
        transport: None,
        tried: Vec::new(),
    };

    let empty = matches!(body, Body::Empty);
    let buffer_limit = route
        .request_body_buffer_limit
        .unwrap_or_else(|| u64::from(cluster.info.per_connection_buffer_limit));
    let mut bodies = Bodies::new(body, retry.possible(), buffer_limit);

    let expired = timeout::expire(limits.global, cx.info.progress.clone());
    tokio::pin!(expired);
    let mut finalized = false;
    let mut held = None;
    loop {
        let attempts = cx.info.upstream.attempts + 1;
        let Some(host) = request.pick(head, cx) else {
            charge(config, &cluster, StatusCode::SERVICE_UNAVAILABLE);
            return Err(Box::new(
                LocalReply::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "no healthy upstream",
                    "no_healthy_upstream",
                )
                .flag(Flag::NoHealthyUpstream),
            ));
        };
        cx.info.upstream.attempts = attempts;
        if let Some(previous) = cx.info.upstream.host.replace(host.clone()) {
            cx.info.upstream.earlier_hosts.push(previous);
        }
        if !finalized {
            finalized = true;
            route.finalize_request_headers(head, &cx.info, !config.suppress_envoy_headers);
            request.transport = transport::options(&cluster.info.http, head, &cx.info);
            if cluster.info.sockets.speaks_proxy_protocol() {
                request.transport = TransportOptions::with_proxy(request.transport.take(), &cx.info);
            }
            mirror::send(action, head, empty, cx);
        }
        if route.virtual_host().include_request_attempt_count {
            head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
        }
        route.rewrite_host(head, &host.hostname, !config.suppress_envoy_headers);

        let result = {
            // Pinned where it is made: `select!` would move kilobytes of it.
            let mut running = pin!(attempt::run(&request, cx, head, &host, bodies.next()));
            tokio::select! {
                biased;
                result = running.as_mut() => result,
                () = expired.as_mut() => Err(Failure::Timeout),
            }
        };
        drop(held.take());
        let verdict = match &result {
            Ok(answer) => retry.on_response(answer.head.status, &answer.head.headers, &cluster.info, priority),
            Err(failure) => {
                note_failure(failure, cx, &cluster, &host);
                retry.on_failure(failure, &cluster.info, priority)
            }
        };
        match verdict {
            Verdict::Again(wait, guard) if bodies.can_repeat() => {
                if let Ok(answer) = &result {
                    charge_attempt(config, &cluster, &host, answer.head.status);
                }
                drop(result);
                let last = host.clone();
                request.tried.push(host);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    () = expired.as_mut() => {
                        note_failure(&Failure::Timeout, cx, &cluster, &last);
                        return Err(Box::new(Failure::Timeout.reply(true)));
                    }
                }
                held = Some(guard);
                continue;
            }
            Verdict::Again(..) => cluster.info.stats.local().retry_or_shadow_abandoned.inc(),
            Verdict::LimitExceeded => cx.info.flags.set(Flag::UpstreamRetryLimitExceeded),
            Verdict::Done if attempts > 1 && result.is_ok() => {
                cluster.info.stats.local().upstream_rq_retry_success.inc()
            }
            Verdict::Done | Verdict::Overflow => {}
        }
        return match result {
            Ok(answer) => Ok(request.finish(*answer, head, cx, &host, upgrade)),
            Err(failure) => {
                let mut reply = failure.reply(attempts > 1);
                if let Failure::Timeout | Failure::PerTryTimeout = failure {
                    charge(config, &cluster, StatusCode::GATEWAY_TIMEOUT);
                } else {
                    charge(config, &cluster, reply.status);
                }
                if route.virtual_host().include_attempt_count_in_response {
                    reply.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
                }
                Err(Box::new(reply))
            }
        };
    }
}

/// Maintenance mode and `drop_overload`: the cluster takes no request, or not this one.
fn refused(config: &RouterConfig, cx: &FilterCx, cluster: &WorkerCluster) -> Result<(), Box<LocalReply>> {
    let stats = cluster.info.stats.local();
    let (body, details, flag, header) = if cx.worker.server.runtime.in_maintenance(&cluster.info.name) {
        stats.upstream_rq_maintenance_mode.inc();
        (
            "maintenance mode",
            "maintenance_mode",
            Flag::UpstreamOverflow,
            "x-envoy-overloaded",
        )
    } else {
        match cluster.drops(fastrand::u64(..)) {
            Dropped::No => return Ok(()),
            Dropped::Some => (
                "drop overload",
                "drop_overload",
                Flag::DropOverload,
                "x-envoy-drop-overload",
            ),
            Dropped::All => (
                "unconditional drop overload",
                "unconditional_drop_overload",
                Flag::UnconditionalDropOverload,
                "x-envoy-unconditional-drop-overload",
            ),
        }
    };
    charge(config, cluster, StatusCode::SERVICE_UNAVAILABLE);
    let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details).flag(flag);
    if !config.suppress_envoy_headers {
        let yes = HeaderValue::from_static("true");
        reply.headers.insert(HeaderName::from_static(header), yes);
    }
    Err(Box::new(reply))
}

/// The request's body, for one attempt or for several.
enum Bodies {
    Once(Option<Body>),
    Kept(Replay),
}

impl Bodies {
    fn new(body: Body, keep: bool, limit: u64) -> Self {
        match body {
            Body::Empty => Self::Once(Some(Body::Empty)),
            body if keep => Self::Kept(Replay::new(body, limit)),
            body => Self::Once(Some(body)),
        }
    }

    fn next(&mut self) -> Body {
        match self {
            Self::Once(body @ Some(Body::Empty)) => {
                *body = Some(Body::Empty);
                Body::Empty
            }
            Self::Once(body) => body.take().unwrap_or_default(),
            Self::Kept(replay) => replay.body(),
        }
    }

    fn can_repeat(&self) -> bool {
        match self {
            Self::Once(body) => matches!(body, Some(Body::Empty)),
            Self::Kept(replay) => !replay.abandoned(),
        }
    }
}

/// What all attempts of a request share.
pub(super) struct Request<'a> {
    pub(super) config: &'a RouterConfig,
    pub(super) route: &'a RouteMatch,
    pub(super) action: &'a RouteAction,
    pub(super) cluster: &'a Rc<WorkerCluster>,
    pub(super) priority: ResourcePriority,
    pub(super) limits: timeout::Limits,
    /// What the connection must be made with.
    pub(super) transport: Option<Arc<TransportOptions>>,
    /// Hosts of attempts that failed, for `previous_hosts`.
    pub(super) tried: Vec<Arc<Host>>,
}

impl Request<'_> {
    fn pick(&self, head: &RequestHead, cx: &FilterCx) -> Option<Arc<Host>> {
        let policy = self.action.retry_policy.as_deref();
        let avoid = policy.is_some_and(|p| p.host_predicates.iter().any(|e| e.name.ends_with("previous_hosts")));
        let rejects = |host: &Host| self.tried.iter().any(|t| std::ptr::eq(&**t, host));
        let hash = self.route.hash(head, &cx.info).hash;
        self.cluster.pick(&LbContext {
            hash,
            rejects: (avoid && !self.tried.is_empty()).then_some(&rejects as &dyn Fn(&Host) -> bool),
            attempts: policy.map_or(1, |p| p.host_selection_attempts),
            ..LbContext::default()
        })
    }

    /// The answer that counts, as a response.
    fn finish(
        &self,
        answer: Answer,
        head: &RequestHead,
        cx: &mut FilterCx,
        host: &Arc<Host>,
        upgrade: Option<Upgrade>,
    ) -> Routed {
        let Answer {
            head: mut response,
            body,
            upgrade: upstream,
        } = answer;
        if !cx.info.health_check {
            charge(self.config, self.cluster, response.status);
        }
        count_host(host, response.status);
        headers::response(&mut response, &cx.info, self.config);
        if self.route.virtual_host().include_attempt_count_in_response {
            response
                .headers
                .insert(ATTEMPT_COUNT, HeaderValue::from(cx.info.upstream.attempts));
        }
        // Mutations may print both.
        cx.info.response_code = Some(response.status);
        cx.info.response_code_details = Some("via_upstream".into());
        self.route
            .finalize_response_headers(&mut response, Some(head), &cx.info);
        let tunnel = match (upgrade, upstream) {
            (Some(downstream), Some(upstream)) => Some(Tunnel { downstream, upstream }),
            _ => None,
        };
        let body = UpstreamTail::wrap(body, self, &cx.info);
        Routed {
            head: response,
            body,
            tunnel,
        }
    }
}

fn note_failure(failure: &Failure, cx: &mut FilterCx, cluster: &WorkerCluster, host: &Host) {
    use std::sync::atomic::Ordering::Relaxed;
    // The flag comes with the reply: an attempt that is made again leaves none.
    cx.info.upstream.transport_failure = failure.transport_failure().map(str::to_owned);
    let stats = cluster.info.stats.local();
    match failure {
        Failure::Timeout => {
            stats.upstream_rq_timeout.inc();
            host.stats.rq_timeout.fetch_add(1, Relaxed);
        }
        Failure::PerTryTimeout => {
            stats.upstream_rq_per_try_timeout.inc();
            host.stats.rq_timeout.fetch_add(1, Relaxed);
        }
        Failure::Connect(_) | Failure::Upstream(_) => {
            host.stats.rq_error.fetch_add(1, Relaxed);
        }
    }
}

/// An attempt whose answer is not the client's.
fn charge_attempt(config: &RouterConfig, cluster: &WorkerCluster, host: &Host, status: StatusCode) {
    count_host(host, status);
    if config.dynamic_stats {
        cluster.info.codes.charge_basic(status.as_u16());
    }
}

fn charge(config: &RouterConfig, cluster: &WorkerCluster, status: StatusCode) {
    if config.dynamic_stats {
        cluster.info.codes.charge(status.as_u16(), false);
    }
}

fn count_host(host: &Host, status: StatusCode) {
    let counter = if status.is_server_error() {
        &host.stats.rq_error
    } else {
        &host.stats.rq_success
    };
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}
