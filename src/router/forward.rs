//! Forwarding to a cluster: attempts, until one counts.

use std::{cell::Cell, net::SocketAddr, pin::pin, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    Outcome, Routed, RouterConfig, Tunnel,
    attempt::{self, Answer},
    body::{Bodies, UpstreamTail},
    failure::{Failure, ReplyCx},
    headers, mirror, redirect,
    retry::{Retry, Verdict},
    timeout::{self, Limits},
    timing::HeaderSizes,
    transport,
    upstream_log::AttemptLog,
};
use crate::{
    http::{
        Body, Flag, LocalReply, RequestHead, StreamInfo,
        codec::Upgrade,
        filter::{FilterCx, OverrideHost},
        grpc,
    },
    route::{EntryStats, HashOutcome, Priority, RequestStats, RouteAction, RouteMatch},
    stats::CounterCell,
    upstream::{
        ConnectFailure, Dropped, Host, HostResult, LbContext, ResourcePriority, TransportOptions, UpstreamFailure,
        WorkerCluster,
    },
};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
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
    cx.info.virtual_cluster = virtual_cluster.map(|c| c.name.clone());
    cx.info.upstream.cluster = Some(cluster.info.name.clone());
    cx.info.upstream.cluster_observability_name = Some(cluster.info.observability_name.clone());
    cx.info.upstream.cluster_metadata = Some(cluster.info.metadata.clone());
    headers::strict_check(head, config)?;
    headers::strip(head);

    let mut request = Request {
        config,
        route,
        action,
        cluster: &cluster,
        priority: match action.priority {
            Priority::Default => ResourcePriority::Default,
            Priority::High => ResourcePriority::High,
        },
        hash: route.hash(head, &cx.info),
        internal: headers::is_internal(head),
        entries: [virtual_cluster, route.stats.as_ref()],
        limits: Limits::default(),
        transport: None,
        tried: Vec::new(),
        informed: Cell::new(false),
        override_host: cx.override_host.clone(),
    };
    refused(&request, cx)?;
    cx.info.upstream.attempts = 1;
    let Some(mut host) = request.pick(head, &cx.info) else {
        return Err(request.no_healthy_upstream());
    };
    note_host(cx, &host);
    request.limits = timeout::limits(head, action, &cluster.info, config);
    let limits = request.limits;
    limits.set_headers(head, true, &cx.info.progress, config);
    let vhost = route.virtual_host();
    if vhost.include_request_attempt_count {
        head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(1));
    }
    route.finalize_request_headers(head, &cx.info, !config.suppress_envoy_headers);
    request.transport = transport::options(&cluster.info.http, head, &cx.info);
    if cluster.info.sockets.speaks_proxy_protocol() {
        request.transport = TransportOptions::with_proxy(request.transport.take(), &cx.info);
    }
    let mut retry = Retry::new(action.retry_policy.as_ref(), head, &config.keys);

    let buffer_limit = route
        .request_body_buffer_limit
        .unwrap_or_else(|| u64::from(cluster.info.per_connection_buffer_limit));
    let body = mirror::send(&request, head, body, buffer_limit, cx);
    let keep = retry.possible() || action.internal_redirect.is_some();
    let mut bodies = Bodies::new(body, keep, buffer_limit, cluster.info.stats.clone());

    let expired = timeout::expire(limits.global, None, cx.info.progress.clone());
    tokio::pin!(expired);
    let mut held = None;
    loop {
        let attempts = cx.info.upstream.attempts;
        route.rewrite_host(head, &host.hostname, !config.suppress_envoy_headers);
        let mut log = AttemptLog::start(config, head, &cx.info);
        let result = {
            // Pinned where it is made: `select!` would move kilobytes of it.
            let mut running = pin!(attempt::run(&request, cx, head, &host, &mut bodies));
            tokio::select! {
                biased;
                result = running.as_mut() => result,
                () = expired.as_mut() => Err(Failure::Timeout),
            }
        };
        drop(held.take());
        if let Some(log) = &mut log {
            log.note(&cx.info, &result);
        }
        report(&cluster, &host, &result);
        if let Err(failure) = &result {
            note_failure(failure, cx, &cluster, &host);
            if let Failure::Timeout = failure {
                request.count(|stats| &stats.upstream_rq_timeout);
            }
        }
        let verdict = match &result {
            // Given up with the copy of the body, or because the client has heard of this attempt.
            _ if bodies.abandoned() || request.informed.get() => Verdict::Done,
            Ok(answer) => retry.on_response(&answer.head, &cluster.info, request.priority),
            Err(failure) => retry.on_failure(failure, &cluster.info, request.priority),
        };
        request.count_verdict(&verdict, attempts);
        match verdict {
            Verdict::Again(wait, guard) => {
                if let Ok(answer) = &result {
                    charge_attempt(config, &cluster, &host, answer.head.status);
                }
                let timed_out = matches!(result, Err(Failure::PerTryTimeout));
                drop(result);
                drop(log);
                request.tried.push(host);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    () = expired.as_mut() => return Err(Box::new(request.reply(&Failure::Timeout, cx))),
                }
                held = Some(guard);
                cx.info.upstream.attempts += 1;
                host = match request.pick(head, &cx.info) {
                    Some(host) => host,
                    None => return Err(request.no_healthy_upstream()),
                };
                note_host(cx, &host);
                limits.set_headers(head, false, &cx.info.progress, config);
                if vhost.include_request_attempt_count {
                    let attempts = cx.info.upstream.attempts;
                    head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
                }
                if vhost.include_is_timeout_retry_header {
                    let value = HeaderValue::from_static(if timed_out { "true" } else { "false" });
                    head.headers.insert(TIMEOUT_RETRY, value);
                }
                continue;
            }
            Verdict::LimitExceeded => cx.info.flags.set(Flag::UpstreamRetryLimitExceeded),
            Verdict::Overflow => cx.info.flags.set(Flag::UpstreamOverflow),
            Verdict::Done if attempts > 1 => cluster.info.stats.local().upstream_rq_retry_success.inc(),
            Verdict::Done => {}
        }
        return match result {
            Ok(answer) => {
                if let Some(outcome) = redirect::follow(&request, &answer.head, head, &bodies, cx) {
                    return Ok(Outcome::Redirect(outcome));
                }
                Ok(Outcome::Response(Box::new(
                    request.finish(*answer, head, cx, &host, upgrade, log),
                )))
            }
            Err(failure) => {
                if let Failure::Connect(ConnectFailure::Overflow) = failure {
                    cx.info.upstream.host = None;
                }
                // What has come of the request counts as received, though nobody took it.
                bodies.read_what_came(buffer_limit);
                let reply = request.reply(&failure, cx);
                charge(&request, reply.status);
                Err(Box::new(reply))
            }
        };
    }
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
    charge(request, StatusCode::SERVICE_UNAVAILABLE);
    let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details).flag(flag);
    if !request.config.suppress_envoy_headers {
        let yes = HeaderValue::from_static("true");
        reply.headers.insert(HeaderName::from_static(header), yes);
    }
    Err(Box::new(reply))
}

/// What all attempts of a request share.
pub(super) struct Request<'a> {
    pub(super) config: &'a Arc<RouterConfig>,
    pub(super) route: &'a RouteMatch,
    pub(super) action: &'a RouteAction,
    pub(super) cluster: &'a Rc<WorkerCluster>,
    pub(super) priority: ResourcePriority,
    pub(super) hash: HashOutcome,
    /// The request came from inside (`x-envoy-internal`).
    pub(super) internal: bool,
    /// The virtual cluster and the route, where they count.
    pub(super) entries: [Option<&'a EntryStats>; 2],
    pub(super) limits: Limits,
    /// What the connection must be made with.
    pub(super) transport: Option<Arc<TransportOptions>>,
    /// Hosts of the attempts before, in order.
    pub(super) tried: Vec<Arc<Host>>,
    /// An informational response came: no other attempt is made.
    informed: Cell<bool>,
    /// The host that a filter wants for the first attempt.
    pub(super) override_host: Option<OverrideHost>,
}

impl Request<'_> {
    /// Counts where the virtual cluster and the route do.
    pub(super) fn count(&self, counter: impl Fn(&RequestStats) -> &CounterCell) {
        for entry in self.entries.iter().flatten() {
            counter(entry.stats.local()).inc();
        }
    }

    /// An informational response came.
    pub(super) fn informed(&self, status: StatusCode) {
        self.informed.set(true);
        charge(self, status);
    }

    fn count_verdict(&self, verdict: &Verdict, attempts: u32) {
        match verdict {
            Verdict::Again(..) => self.count(|stats| &stats.upstream_rq_retry),
            Verdict::LimitExceeded => self.count(|stats| &stats.upstream_rq_retry_limit_exceeded),
            Verdict::Overflow => self.count(|stats| &stats.upstream_rq_retry_overflow),
            Verdict::Done if attempts > 1 => self.count(|stats| &stats.upstream_rq_retry_success),
            Verdict::Done => {}
        }
    }

    fn pick(&self, head: &RequestHead, info: &StreamInfo) -> Option<Arc<Host>> {
        let policy = self.action.retry_policy.as_deref().filter(|_| !self.tried.is_empty());
        let predicates = policy.map_or(&[][..], |p| &p.host_predicates);
        let rejects = |host: &Host| predicates.iter().any(|p| p.rejects(host, &self.tried));
        let avoid = policy.and_then(|p| p.priority).map(|p| p.avoid(&self.tried));
        self.cluster.pick(&LbContext {
            hash: self.hash.hash,
            rejects: (!predicates.is_empty()).then_some(&rejects as &dyn Fn(&Host) -> bool),
            attempts: policy.map_or(1, |p| p.host_selection_attempts),
            avoid_priorities: avoid.as_deref().unwrap_or_default(),
            override_host: self.asked_for().map(|o| (&*o.address, o.strict)),
            original_dst: self.original_destination(head, info),
            ..LbContext::default()
        })
    }

    /// Where an original destination cluster is to go: by the request's header (`use_http_header`), or where the
    /// connection was to go before it was redirected.
    fn original_destination(&self, head: &RequestHead, info: &StreamInfo) -> Option<SocketAddr> {
        let options = self.cluster.info.original_dst.as_ref()?;
        if !options.use_http_header {
            return info.connection.original_destination();
        }
        let name = match options.http_header_name.as_str() {
            "" => "x-envoy-original-dst-host",
            name => name,
        };
        let Some(value) = head.get_str(name) else {
            return info.connection.original_destination();
        };
        let address = value.parse().ok();
        if address.is_none() {
            self.cluster.info.stats.local().original_dst_host_invalid.inc();
        }
        address
    }

    /// The host that a filter wants; a retry is free to go elsewhere.
    fn asked_for(&self) -> Option<&OverrideHost> {
        self.override_host.as_ref().filter(|_| self.tried.is_empty())
    }

    fn no_healthy_upstream(&self) -> Box<LocalReply> {
        let status = match self.asked_for() {
            Some(asked) if asked.strict && !self.cluster.has_host(&asked.address) => asked.not_found,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        charge(self, status);
        Box::new(LocalReply::new(status, "no healthy upstream", "no_healthy_upstream").flag(Flag::NoHealthyUpstream))
    }

    /// What the client is answered after a failure.
    fn reply(&self, failure: &Failure, cx: &FilterCx) -> LocalReply {
        let attempts = cx.info.upstream.attempts;
        let mut reply = failure.reply(&ReplyCx {
            retried: attempts > 1,
            alternative: self.limits.alternative,
            request_complete: cx.info.progress.request_complete.get(),
            suppress_envoy_headers: self.config.suppress_envoy_headers,
        });
        if self.route.virtual_host().include_attempt_count_in_response {
            reply.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
        }
        reply
    }

    /// The answer that counts, as a response.
    fn finish(
        &self,
        answer: Answer,
        head: &RequestHead,
        cx: &mut FilterCx,
        host: &Arc<Host>,
        upgrade: Option<Upgrade>,
        log: Option<AttemptLog>,
    ) -> Routed {
        let Answer {
            head: mut response,
            body,
            upgrade: upstream,
            ready,
        } = answer;
        if !cx.info.health_check {
            charge(self, response.status);
        }
        count_host(host, response.status);
        let sized = self
            .cluster
            .info
            .optional_stats
            .as_ref()
            .is_some_and(|o| o.sizes.is_some());
        let sizes = sized.then(|| HeaderSizes::of(&head.headers, &response.headers));
        headers::response(&mut response, &cx.info, self.config);
        if self.route.virtual_host().include_attempt_count_in_response {
            let attempts = cx.info.upstream.attempts;
            response.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
        }
        self.set_cookies(&mut response.headers);
        // Mutations may print both.
        cx.info.response_code = Some(response.status);
        cx.info.response_code_details = Some("via_upstream".into());
        self.route
            .finalize_response_headers(&mut response, Some(head), &cx.info);
        let tunnel = match (upgrade, upstream) {
            (Some(downstream), Some(upstream)) => Some(Tunnel { downstream, upstream }),
            _ => None,
        };
        Routed {
            head: response,
            body: UpstreamTail::wrap(body, self, &cx.info, sizes, ready, log),
            tunnel,
        }
    }

    /// The cookies that the hash policy made, so that the client comes back to the same host.
    fn set_cookies(&self, headers: &mut HeaderMap) {
        for cookie in &self.hash.set_cookies {
            headers.append(header::SET_COOKIE, cookie.clone());
        }
    }
}

/// Tells outlier detection how the attempt went; what the host is not to blame for says nothing.
fn report(cluster: &WorkerCluster, host: &Arc<Host>, result: &Result<Box<Answer>, Failure>) {
    if let Ok(answer) = result
        && answer.head.headers.contains_key("x-envoy-immediate-health-check-fail")
    {
        cluster.fail_health_check(host);
    }
    cluster.report(
        host,
        match result {
            Ok(answer) => HostResult::Status(match answer.head.headers.get("grpc-status") {
                Some(status) => grpc::http_of_status(status),
                None => answer.head.status,
            }),
            Err(Failure::Connect(f) | Failure::Upstream(UpstreamFailure::Connect(f))) if f.is_overflow() => return,
            Err(Failure::Upstream(UpstreamFailure::RequestBody(_)) | Failure::MaxDuration) => return,
            Err(Failure::Connect(_) | Failure::Upstream(_)) => HostResult::Failed,
            Err(Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle) => HostResult::TimedOut,
        },
    );
}

fn note_host(cx: &mut FilterCx, host: &Arc<Host>) {
    if let Some(previous) = cx.info.upstream.host.replace(host.clone()) {
        cx.info.upstream.earlier_hosts.push(previous);
    }
}

fn note_failure(failure: &Failure, cx: &mut FilterCx, cluster: &WorkerCluster, host: &Host) {
    use std::sync::atomic::Ordering::Relaxed;
    // The flag comes with the reply: an attempt that is made again leaves none.
    cx.info.upstream.transport_failure = failure.transport_failure().map(str::to_owned);
    failure.count(cluster.info.stats.local());
    let counter = match failure {
        Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle => &host.stats.rq_timeout,
        Failure::Connect(_) | Failure::Upstream(_) | Failure::MaxDuration => &host.stats.rq_error,
    };
    counter.fetch_add(1, Relaxed);
}

/// An attempt whose answer is not the client's.
fn charge_attempt(config: &RouterConfig, cluster: &WorkerCluster, host: &Host, status: StatusCode) {
    count_host(host, status);
    if config.dynamic_stats {
        cluster.info.retry_codes.charge_basic(status.as_u16());
    }
}

fn charge(request: &Request<'_>, status: StatusCode) {
    if request.config.dynamic_stats {
        request.cluster.info.codes.charge(status.as_u16(), request.internal);
        for entry in request.entries.iter().flatten() {
            entry.codes.charge_basic(status.as_u16());
        }
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
