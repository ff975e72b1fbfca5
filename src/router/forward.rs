//! Forwarding to a cluster: attempts, until one counts.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    Outcome, RouterConfig,
    attempt::{self, Answer},
    body::Bodies,
    by_name,
    charge::Charging,
    failure::Failure,
    headers, hedge, mirror, periodic, redirect,
    request::{ATTEMPT_COUNT, Request},
    retry::{Again, Retry, Verdict},
    timeout::{self, Limits},
    transport,
    upstream_log::AttemptLog,
};
use crate::{
    http::{
        Body, Flag, LocalReply, RequestHead, ResponseHead, Scheme, codec::Upgrade, filter::FilterCx, grpc,
        stream_info::Progress,
    },
    route::{HashOutcome, Priority, RouteAction, RouteMatch},
    server::overload::Point,
    upstream::{
        ConnectFailure, Dropped, Guard, Host, HostResult, ResourcePriority, TransportOptions, UpstreamFailure,
        WorkerCluster,
    },
};

const TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");

/// Forwards the request as `action` says.
pub(super) async fn forward(
    config: &Arc<RouterConfig>,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    body: Body,
    upgrade: Option<Upgrade>,
    route: &RouteMatch,
    action: &RouteAction,
) -> Result<Outcome, Box<LocalReply>> {
    let name = route.cluster_name();
    let Some(cluster) = cx.worker.clusters.get(name) else {
        config.stats.local().no_cluster.inc();
        return Err(Box::new(
            LocalReply::new(action.cluster_not_found, "", "cluster_not_found").flag(Flag::NoClusterFound),
        ));
    };
    let virtual_cluster = route.virtual_cluster(head);
    // The one for all others has statistics, but no name in a log.
    let other = route.virtual_host().other_virtual_cluster.as_ref();
    let named = virtual_cluster.filter(|c| !other.is_some_and(|other| std::ptr::eq(other, *c)));
    cx.info.virtual_cluster = named.map(|c| c.name.clone());
    note_cluster(cx, &cluster);
    headers::strict_check(head, config)?;

    let mut request = Request {
        config,
        route,
        action,
        cluster: &cluster,
        priority: match action.priority {
            Priority::Default => ResourcePriority::Default,
            Priority::High => ResourcePriority::High,
        },
        hash: match cluster
            .info
            .lb
            .hash_policy
            .as_ref()
            .or(cluster.info.http.policies.hash.as_ref())
        {
            // Where nobody asks for it no cookie is made either, as in Envoy.
            _ if !cluster.info.lb.policy.uses_hash() => HashOutcome::default(),
            Some(own) => own.hash(head, &cx.info, true),
            None => route.hash(head, &cx.info),
        },
        grpc: head.is_grpc(),
        charging: Charging {
            internal: headers::is_internal(head),
            completed_only: config.suppress_grpc_code_stats && head.is_grpc(),
            alternative: headers::alternative_stat_name(head).map(|name| name + "."),
        },
        entries: [virtual_cluster, route.stats.as_ref()],
        limits: Limits::default(),
        transport: None,
        tried: RefCell::default(),
        informed: Cell::new(false),
        override_host: cx.override_host.clone(),
        named_hosts: RefCell::default(),
    };
    refused(&request, cx)?;
    cx.info.upstream.attempts = 1;
    let finalized = by_name::prepare(&request, cx, head).await?;
    let Some(host) = request.pick(head, &cx.info) else {
        return Err(request.no_healthy_upstream(cx));
    };
    if cx
        .overload
        .as_ref()
        .is_some_and(|o| o.sheds(Point::DownstreamFilterCheck))
    {
        config.stats.local().rq_overload_local_reply.inc();
        let (status, body) = (StatusCode::SERVICE_UNAVAILABLE, "envoy overloaded");
        return Err(Box::new(LocalReply::new(status, body, "overload")));
    }
    note_host(cx, &cluster, &host);
    request.limits = timeout::limits(head, action, &cluster.info, config);
    let limits = request.limits;
    limits.set_headers(head, true, &cx.info.progress, config);
    if route.virtual_host().include_request_attempt_count {
        head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(1));
    }
    if !finalized {
        // Formats of added headers do not know the host yet.
        let host_later = cx.info.upstream.host.take();
        route.finalize_request_headers(head, &cx.info, !config.suppress_envoy_headers);
        cx.info.upstream.host = host_later;
    }
    if cx.info.scheme_of_upstream {
        head.scheme = match cluster.info.sockets.for_host(&host).is_secure() {
            true => Scheme::Https,
            false => Scheme::Http,
        };
    }
    request.transport = transport::options(&cluster.info.http, head, &cx.info);
    if cluster.info.sockets.speaks_proxy_protocol() {
        request.transport = TransportOptions::with_proxy(request.transport.take(), &cx.info);
    }
    let mut retry = Retry::new(request.retry_policy(), head, &config.keys);

    let buffer_limit = request.buffer_limit(&cx.info);
    let body = mirror::send(&request, head, body, buffer_limit, cx);
    let keep = retry.possible() || action.internal_redirect.is_some();
    let bodies = Bodies::new(body, keep, buffer_limit, cluster.info.stats.clone());

    let mut given = Given {
        bodies: &bodies,
        buffer_limit,
        retry: &mut retry,
        upgrade,
        clusters: Vec::new(),
    };
    attempts(&request, cx, head, host, None, &mut given).await
}

/// What goes from one cluster to the next with a request.
struct Given<'g, 'r> {
    bodies: &'g Bodies,
    buffer_limit: u64,
    retry: &'g mut Retry<'r>,
    upgrade: Option<Upgrade>,
    /// The weighted clusters that were tried.
    clusters: Vec<u32>,
}

/// All attempts, and what the client gets of them.
async fn attempts(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    host: Arc<Host>,
    held: Option<Guard>,
    given: &mut Given<'_, '_>,
) -> Result<Outcome, Box<LocalReply>> {
    let (bodies, buffer_limit) = (given.bodies, given.buffer_limit);
    let next = match request.limits.hedge {
        true => Next::Ended(hedge::run(request, cx, head, host, bodies, given.retry).await?),
        false => one_by_one(request, cx, head, host, held, bodies, given.retry).await?,
    };
    let ended = match next {
        Next::Ended(ended) => ended,
        Next::Elsewhere(again, timed_out) => {
            // Boxed, for it is rare and would double the size of every request.
            return Box::pin(elsewhere(request, cx, head, again, timed_out, given)).await;
        }
    };
    match ended.result {
        Ok(mut answer) => {
            if let Some(reply) = answer.local.take() {
                // The upstream has nothing to do with it: no code is counted.
                return Err(reply);
            }
            if let Some(outcome) = redirect::follow(request, &answer.head, head, bodies, cx) {
                return Ok(Outcome::Redirect(outcome));
            }
            Ok(Outcome::Response(Box::new(request.finish(
                *answer,
                head,
                cx,
                &ended.host,
                given.upgrade.take(),
                ended.log,
            ))))
        }
        Err(failure) => {
            let overflow = matches!(&failure, Failure::Connect(f) | Failure::Upstream(UpstreamFailure::Connect(f)) if f.is_overflow());
            let refused = matches!(failure, Failure::Connect(ConnectFailure::Overflow));
            if refused {
                cx.info.upstream.host = None;
            }
            if !overflow {
                // What has come of the request counts as received, though nobody took it.
                bodies.read_what_came(buffer_limit);
            }
            let reply = request.reply(&failure, cx);
            request.charge_failure(&failure, reply.status, Some(&ended.host).filter(|_| !refused));
            Err(Box::new(reply))
        }
    }
}

/// Goes on with another of the route's clusters (`refresh_cluster_on_retry`).
async fn elsewhere(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    again: Again,
    timed_out: bool,
    given: &mut Given<'_, '_>,
) -> Result<Outcome, Box<LocalReply>> {
    let mut route = request.route.clone();
    route.choose_untried(&mut given.clusters, head, fastrand::u64(..));
    let Some(cluster) = cx.worker.clusters.get(route.cluster_name()) else {
        request.config.stats.local().no_cluster.inc();
        return Err(Box::new(
            LocalReply::new(request.action.cluster_not_found, "", "cluster_not_found").flag(Flag::NoClusterFound),
        ));
    };
    note_cluster(cx, &cluster);
    let moved = request.moved(&route, &cluster);
    moved.count_retry(&again);
    let host = start_again(&moved, cx, head, timed_out)?;
    attempts(&moved, cx, head, host, Some(again.guard), given).await
}

fn note_cluster(cx: &mut FilterCx, cluster: &WorkerCluster) {
    let upstream = &mut cx.info.upstream;
    upstream.cluster = Some(cluster.info.name.clone());
    upstream.cluster_observability_name = Some(cluster.info.observability_name.clone());
    upstream.cluster_metadata = Some(cluster.info.metadata.clone());
}

/// How a row of attempts ended.
enum Next {
    Ended(Ended),
    /// The next one goes to another cluster; whether the last one ran out of time.
    Elsewhere(Again, bool),
}

/// What all attempts came to.
pub(super) struct Ended {
    pub(super) result: Result<Box<Answer>, Failure>,
    pub(super) host: Arc<Host>,
    pub(super) log: Option<Box<AttemptLog>>,
}

/// One attempt after the other.
async fn one_by_one(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    mut host: Arc<Host>,
    mut held: Option<Guard>,
    bodies: &Bodies,
    retry: &mut Retry<'_>,
) -> Result<Next, Box<LocalReply>> {
    let (config, cluster) = (request.config, request.cluster);
    let mut expired = pin!(timeout::expire(request.limits.global, None, cx.info.progress.clone()));
    loop {
        let attempts = cx.info.upstream.attempts;
        request
            .route
            .rewrite_host(head, &host.hostname, !config.suppress_envoy_headers);
        let mut log = AttemptLog::start(config, head, cx);
        let result = {
            let (shared, head) = (RefCell::new(&mut *cx), RefCell::new(&mut *head));
            // Pinned where it is made: `select!` would move kilobytes of it.
            let mut running = pin!(attempt::run(request, &shared, &head, &host, bodies, None));
            tokio::select! {
                biased;
                result = running.as_mut() => result,
                () = expired.as_mut() => Err(Failure::Timeout),
                never = periodic::of_stream(&shared, &head) => match never {},
                never = periodic::of_attempt(log.as_deref_mut(), &shared) => match never {},
            }
        };
        drop(held.take());
        if let Err(Failure::Upstream(UpstreamFailure::RequestBody(_))) = &result {
            leave(&cx.info.progress).await;
        }
        if let Some(log) = &mut log {
            log.note(cx, &result);
        }
        report(request, &host, &result);
        if let Err(failure) = &result {
            if let Failure::NoPool = failure {
                cx.info.upstream.host = None;
                return Err(request.no_healthy_upstream(cx));
            }
            note_failure(failure, cx, cluster, &host);
            if let Failure::Timeout = failure {
                request.count(|stats| &stats.upstream_rq_timeout);
            }
        }
        let verdict = match &result {
            // Given up with the copy of the body, or because the client has heard of this attempt, or for good.
            _ if bodies.abandoned() || request.informed.get() => Verdict::Final,
            Ok(answer) if answer.local.is_some() => Verdict::Final,
            Err(Failure::Timeout) => Verdict::Final,
            Ok(answer) => retry.on_response(&answer.head, &cluster.info, request.priority),
            Err(failure) => retry.on_failure(failure, &cluster.info, request.priority),
        };
        request.count_verdict(&verdict, attempts);
        match verdict {
            Verdict::Again(again) => {
                if let Ok(answer) = &result {
                    charge_attempt(request, &host, answer.head.status);
                }
                let timed_out = matches!(result, Err(Failure::PerTryTimeout));
                drop(result);
                drop(log);
                request.tried.borrow_mut().push(host);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(again.wait) => {}
                    () = expired.as_mut() => return Err(Box::new(request.reply(&Failure::Timeout, cx))),
                    () = bodies.outgrown() => return Err(request.outgrown(cx)),
                }
                if retry.refreshes_cluster() && request.route.weighted_cluster().is_some() {
                    return Ok(Next::Elsewhere(again, timed_out));
                }
                request.count_retry(&again);
                held = Some(again.guard);
                host = start_again(request, cx, head, timed_out)?;
                continue;
            }
            Verdict::LimitExceeded => cx.info.flags.set(Flag::UpstreamRetryLimitExceeded),
            Verdict::Overflow => cx.info.flags.set(Flag::UpstreamOverflow),
            Verdict::Done | Verdict::Final => {}
        }
        return Ok(Next::Ended(Ended { result, host, log }));
    }
}

/// The request's own body failed. When that is the client's doing, whoever serves the client gives up now, and this
/// is not waited for any more.
pub(super) async fn leave(progress: &Progress) {
    if !progress.request_complete.get() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Prepares the next attempt: its host, and what its headers say.
pub(super) fn start_again(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    timed_out: bool,
) -> Result<Arc<Host>, Box<LocalReply>> {
    cx.info.upstream.attempts += 1;
    let Some(host) = request.pick(head, &cx.info) else {
        return Err(request.no_healthy_upstream(cx));
    };
    note_host(cx, request.cluster, &host);
    request
        .limits
        .set_headers(head, false, &cx.info.progress, request.config);
    let vhost = request.route.virtual_host();
    if vhost.include_request_attempt_count {
        let attempts = cx.info.upstream.attempts;
        head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
    }
    if vhost.include_is_timeout_retry_header {
        let value = HeaderValue::from_static(if timed_out { "true" } else { "false" });
        head.headers.insert(TIMEOUT_RETRY, value);
    }
    Ok(host)
}

/// Maintenance mode and `drop_overload`: the cluster takes no request, or not this one.
fn refused(request: &Request<'_>, cx: &FilterCx) -> Result<(), Box<LocalReply>> {
    let cluster = request.cluster;
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
    let drops = &cluster.info.drops;
    let counter = match flag {
        Flag::UpstreamOverflow => &drops.dropped,
        _ => &drops.overload,
    };
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    request.charge(StatusCode::SERVICE_UNAVAILABLE, None, None);
    let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details).flag(flag);
    if !request.config.suppress_envoy_headers {
        let yes = HeaderValue::from_static("true");
        reply.headers.insert(HeaderName::from_static(header), yes);
    }
    Err(Box::new(reply))
}

/// Tells outlier detection how the attempt went; what the host is not to blame for says nothing.
pub(super) fn report(request: &Request<'_>, host: &Arc<Host>, result: &Result<Box<Answer>, Failure>) {
    let cluster = request.cluster;
    if let Ok(answer) = result
        && answer.head.headers.contains_key("x-envoy-immediate-health-check-fail")
    {
        cluster.fail_health_check(host);
    }
    if let Ok(answer) = result {
        cluster.load_report(host, &answer.head.headers);
    }
    cluster.report(
        host,
        match result {
            Ok(answer) if answer.local.is_some() => return,
            Ok(answer) if answer.head.headers.contains_key("x-envoy-degraded") => {
                HostResult::Degraded(judged(&answer.head, cluster))
            }
            Ok(answer) => HostResult::Status(judged(&answer.head, cluster)),
            Err(Failure::Connect(f) | Failure::Upstream(UpstreamFailure::Connect(f))) if f.is_overflow() => return,
            Err(Failure::Upstream(UpstreamFailure::RequestBody(_)) | Failure::MaxDuration | Failure::NoPool) => return,
            Err(Failure::Connect(_) | Failure::Upstream(_)) => HostResult::Failed,
            Err(Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle) => timed_out(request),
        },
    );
}

/// The status of a response as outlier detection sees it: a cluster may say itself what is an error.
fn judged(head: &ResponseHead, cluster: &WorkerCluster) -> StatusCode {
    if let Some(errors) = &cluster.info.http.error_matcher {
        return match errors.matches(head) {
            true if head.status.is_server_error() => head.status,
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        };
    }
    match head.headers.get("grpc-status") {
        Some(status) => grpc::http_of_status(status),
        None => head.status,
    }
}

/// What a timeout says of the host: nothing bad if the client wants it answered 204.
pub(super) fn timed_out(request: &Request<'_>) -> HostResult {
    HostResult::TimedOut(match request.limits.alternative {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::GATEWAY_TIMEOUT,
    })
}

fn note_host(cx: &mut FilterCx, cluster: &WorkerCluster, host: &Arc<Host>) {
    if let Some(named) = &cluster.info.lb.override_hosts {
        named.note(|| host.address.to_string(), &mut cx.info.metadata);
    }
    let upstream = &mut cx.info.upstream;
    // As in Envoy, what an attempt leaves behind is gone with the next one.
    upstream.host = Some(host.clone());
    upstream.connected = false;
    upstream.transport_failure = None;
}

pub(super) fn note_failure(failure: &Failure, cx: &mut FilterCx, cluster: &WorkerCluster, host: &Host) {
    use std::sync::atomic::Ordering::Relaxed;
    // The flag comes with the reply: an attempt that is made again leaves none.
    cx.info.upstream.transport_failure = failure.transport_failure().map(str::to_owned);
    failure.count(cluster.info.stats.local());
    let counter = match failure {
        Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle => &host.stats.rq_timeout,
        Failure::Connect(_) | Failure::Upstream(_) | Failure::MaxDuration | Failure::NoPool => &host.stats.rq_error,
    };
    counter.fetch_add(1, Relaxed);
}

/// An attempt whose answer is not the client's.
pub(super) fn charge_attempt(request: &Request<'_>, host: &Host, status: StatusCode) {
    count_host(host, status);
    let codes = &request.cluster.info.retry_codes;
    codes.charge_basic_as(status.as_u16(), request.charging.completed_only);
}

pub(super) fn count_host(host: &Host, status: StatusCode) {
    let counter = if status.is_server_error() {
        &host.stats.rq_error
    } else {
        &host.stats.rq_success
    };
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// A gRPC answer, which says in its trailers (or in its head alone) how it went; not at all is badly.
pub(super) fn count_grpc(host: &Host, headers: &HeaderMap) {
    let status = headers.get("grpc-status").map(grpc::http_of_status);
    count_host(host, status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
}
