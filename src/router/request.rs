//! What the attempts of one request share: its route and cluster, where it counts, and what the client is answered.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};

use super::{
    Routed, RouterConfig, Tunnel,
    attempt::Answer,
    body::UpstreamTail,
    charge::{Charging, is_canary},
    failure::{Failure, ReplyCx},
    forward::{count_grpc, count_host},
    headers, load_report,
    retry::{Again, Verdict},
    terminate,
    timeout::Limits,
    timing::{HeaderSizes, Timing},
    upstream_log::AttemptLog,
};
use crate::{
    http::{
        Body, Flag, LocalReply, RequestHead, StreamInfo,
        codec::Upgrade,
        filter::{FilterCx, OverrideHost},
    },
    route::{EntryStats, HashOutcome, MetadataMatch, MirrorPolicy, RequestStats, RetryPolicy, RouteAction, RouteMatch},
    stats::CounterCell,
    upstream::{Host, LbContext, ResourcePriority, TransportOptions, WorkerCluster},
};

/// What a stream buffers by default where a connection has many: Envoy's stream window.
const STREAM_BUFFER_LIMIT: u64 = 16 << 20;

pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// What all attempts of a request share.
pub(super) struct Request<'a> {
    pub(super) config: &'a Arc<RouterConfig>,
    pub(super) route: &'a RouteMatch,
    pub(super) action: &'a RouteAction,
    pub(super) cluster: &'a Rc<WorkerCluster>,
    pub(super) priority: ResourcePriority,
    pub(super) hash: HashOutcome,
    pub(super) charging: Charging,
    /// A gRPC request.
    pub(super) grpc: bool,
    /// The virtual cluster and the route, where they count.
    pub(super) entries: [Option<&'a EntryStats>; 2],
    pub(super) limits: Limits,
    /// What the connection must be made with.
    pub(super) transport: Option<Arc<TransportOptions>>,
    /// Hosts of the attempts before, in order.
    pub(super) tried: RefCell<Vec<Arc<Host>>>,
    /// An informational response came: no other attempt is made.
    pub(super) informed: Cell<bool>,
    /// The host that a filter wants for the first attempt.
    pub(super) override_host: Option<OverrideHost>,
    /// The hosts that the request names and that were not tried yet (`override_host`), once it was looked for them.
    pub(super) named_hosts: RefCell<Option<VecDeque<String>>>,
}

impl<'a> Request<'a> {
    /// The same request on its way to another cluster.
    pub(super) fn moved<'b>(&self, route: &'b RouteMatch, cluster: &'b Rc<WorkerCluster>) -> Request<'b>
    where
        'a: 'b,
    {
        Request {
            config: self.config,
            route,
            action: self.action,
            cluster,
            priority: self.priority,
            hash: self.hash.clone(),
            charging: self.charging.clone(),
            grpc: self.grpc,
            entries: self.entries,
            limits: self.limits,
            transport: self.transport.clone(),
            tried: self.tried.clone(),
            informed: self.informed.clone(),
            override_host: None,
            named_hosts: self.named_hosts.clone(),
        }
    }
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
        self.charge(status, None, None);
    }

    /// Counts what comes of an attempt; a retry counts when it starts.
    pub(super) fn count_verdict(&self, verdict: &Verdict, attempts: u32) {
        match verdict {
            Verdict::Again(_) | Verdict::Final => {}
            Verdict::LimitExceeded => self.count(|stats| &stats.upstream_rq_retry_limit_exceeded),
            Verdict::Overflow => self.count(|stats| &stats.upstream_rq_retry_overflow),
            Verdict::Done if attempts > 1 => {
                self.cluster.info.stats.local().upstream_rq_retry_success.inc();
                self.count(|stats| &stats.upstream_rq_retry_success);
            }
            Verdict::Done => {}
        }
    }

    /// Counts a retry that starts.
    pub(super) fn count_retry(&self, again: &Again) {
        let stats = self.cluster.info.stats.local();
        stats.upstream_rq_retry.inc();
        match again.asked {
            true => stats.upstream_rq_retry_backoff_ratelimited.inc(),
            false => stats.upstream_rq_retry_backoff_exponential.inc(),
        }
        self.count(|stats| &stats.upstream_rq_retry);
    }

    /// The cluster's retry policy, or else the route's.
    pub(super) fn retry_policy(&self) -> Option<&Arc<RetryPolicy>> {
        let own = self.cluster.info.http.policies.retry.as_ref();
        own.or(self.action.retry_policy.as_ref())
    }

    /// The cluster's mirrors, or else the route's.
    pub(super) fn mirrors(&self) -> &[MirrorPolicy] {
        match &self.cluster.info.http.policies.mirrors {
            own if !own.is_empty() => own,
            _ => &self.action.mirrors,
        }
    }

    /// How much of a request's body is kept for other attempts and mirrors: what the route says, or else what its
    /// connection buffers.
    pub(super) fn buffer_limit(&self, info: &StreamInfo) -> u64 {
        self.route.request_body_buffer_limit.unwrap_or(match info.protocol {
            Some(Version::HTTP_2 | Version::HTTP_3) => STREAM_BUFFER_LIMIT,
            _ => u64::from(info.connection.buffer_limit),
        })
    }

    /// A host for the next attempt.
    pub(super) fn pick(&self, head: &RequestHead, info: &StreamInfo) -> Option<Arc<Host>> {
        let tried = self.tried.borrow();
        let policy = self.retry_policy().filter(|_| !tried.is_empty());
        let predicates = policy.map_or(&[][..], |p| &p.host_predicates);
        let rejects = |host: &Host| predicates.iter().any(|p| p.rejects(host, &tried));
        let others = |avoided: &[u32]| self.cluster.has_available_besides(avoided);
        let avoid = policy
            .and_then(|p| p.priority)
            .map(|p| p.avoid(&tried, |host| self.cluster.priority_of(host), others));
        if let Some(host) = self.named(head, info) {
            return Some(host);
        }
        self.cluster.pick(&LbContext {
            hash: self.hash.hash,
            rejects: (!predicates.is_empty()).then_some(&rejects as &dyn Fn(&Host) -> bool),
            attempts: policy.map_or(1, |p| p.host_selection_attempts),
            avoid_priorities: avoid.as_deref().unwrap_or_default(),
            override_host: self.asked_for().map(|o| (&*o.address, o.strict)),
            head: Some(head),
            info: Some(info),
            forced: None,
            metadata_match: self.criteria(info).as_deref(),
        })
    }

    /// The next of the hosts that the request names which the cluster has, in whatever health.
    fn named(&self, head: &RequestHead, info: &StreamInfo) -> Option<Arc<Host>> {
        let config = self.cluster.info.lb.override_hosts.as_ref()?;
        if self.asked_for().is_some() {
            return None;
        }
        let mut named = self.named_hosts.borrow_mut();
        let left = named.get_or_insert_with(|| config.named(head, &info.metadata).into());
        std::iter::from_fn(|| left.pop_front()).find_map(|address| self.cluster.host(&address))
    }

    /// What the host's metadata must say: the route's criteria, with those that filters set (`envoy.lb`) over them.
    fn criteria(&self, info: &StreamInfo) -> Option<Cow<'_, MetadataMatch>> {
        let of_route = self.route.metadata_match().map(|m| Cow::Borrowed(&**m));
        if self.cluster.info.lb.subsets.is_none() {
            return of_route;
        }
        let connection = info.connection.metadata.borrow();
        let mut own = [connection.get("envoy.lb"), info.metadata.get("envoy.lb")]
            .into_iter()
            .flatten()
            .peekable();
        if own.peek().is_none() {
            return of_route;
        }
        let mut criteria = of_route.unwrap_or_default().into_owned();
        for metadata in own {
            criteria.extend(metadata.fields.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        Some(Cow::Owned(criteria))
    }

    /// The host that a filter asked for, as long as it counts.
    fn asked_for(&self) -> Option<&OverrideHost> {
        self.override_host.as_ref().filter(|_| self.tried.borrow().is_empty())
    }

    /// No host could be picked, or it has no pool.
    pub(super) fn no_healthy_upstream(&self, cx: &FilterCx) -> Box<LocalReply> {
        let status = match self.asked_for() {
            Some(asked) if asked.strict && !self.cluster.has_host(&asked.address) => asked.not_found,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        self.charge(status, None, None);
        let reply = LocalReply::new(status, "no healthy upstream", "no_healthy_upstream");
        Box::new(self.counted(reply.flag(Flag::NoHealthyUpstream), cx))
    }

    /// The body became too large to be kept while no attempt was on its way.
    pub(super) fn outgrown(&self, cx: &FilterCx) -> Box<LocalReply> {
        let reply = LocalReply::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "exceeded request buffer limit while retrying upstream",
            "request_payload_exceeded_retry_buffer_limit",
        );
        Box::new(self.counted(reply, cx))
    }

    /// Says how many attempts there were, where the virtual host wants it said.
    fn counted(&self, mut reply: LocalReply, cx: &FilterCx) -> LocalReply {
        if self.route.virtual_host().include_attempt_count_in_response {
            let attempts = cx.info.upstream.attempts;
            reply.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempts));
        }
        reply
    }

    /// What the client is answered after a failure.
    pub(super) fn reply(&self, failure: &Failure, cx: &FilterCx) -> LocalReply {
        let attempts = cx.info.upstream.attempts;
        let reply = failure.reply(&ReplyCx {
            retried: attempts > 1,
            alternative: self.limits.alternative,
            request_complete: cx.info.progress.request_complete.get(),
            suppress_envoy_headers: self.config.suppress_envoy_headers,
            informed: self.informed.get(),
        });
        self.counted(reply, cx)
    }

    /// Charges a failure that the client is told of.
    pub(super) fn charge_failure(&self, failure: &Failure, status: StatusCode, host: Option<&Arc<Host>>) {
        if self.informed.get() {
            self.config
                .stats
                .local()
                .rq_reset_after_downstream_response_started
                .inc();
            return;
        }
        // As Envoy, which counts no code for a stream that took too long.
        if !matches!(failure, Failure::MaxDuration) {
            self.charge(status, None, host);
        }
    }

    /// The answer that counts, as a response.
    pub(super) fn finish(
        &self,
        answer: Answer,
        head: &RequestHead,
        cx: &mut FilterCx,
        host: &Arc<Host>,
        upgrade: Option<Upgrade>,
        mut log: Option<Box<AttemptLog>>,
    ) -> Routed {
        let Answer {
            head: mut response,
            body,
            upgrade: upstream,
            ready,
            local: _,
        } = answer;
        if !cx.info.health_check {
            self.charge(response.status, Some(&response), Some(host));
        }
        let canary = is_canary(Some(&response), Some(host));
        let deferred = self.grpc && !response.status.is_server_error() && !matches!(body, Body::Empty);
        match self.grpc && !response.status.is_server_error() {
            true if deferred => {}
            true => count_grpc(host, &response.headers),
            false => count_host(host, response.status),
        }
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
        if let Some(log) = &mut log {
            log.note_stream(cx);
        }
        self.route
            .finalize_response_headers(&mut response, Some(head), &cx.info);
        let tunnel = match (upgrade, upstream) {
            (Some(downstream), Some(upstream)) => Some(Tunnel {
                downstream,
                upstream,
                terminated: terminate::applies(self.action, head),
            }),
            _ => None,
        };
        let mut body = body;
        if response.status.as_u16() < 400
            && response.status != StatusCode::SWITCHING_PROTOCOLS
            && headers::asks_for_websocket(head)
        {
            // The client could not tell such a body from what it expects to follow its handshake.
            cx.info.response_code_details = Some("websocket_handshake_unsuccessful".into());
            response.headers.remove(http::header::CONTENT_LENGTH);
            body = Body::Empty;
        }
        let body = load_report::in_trailers(body, self.cluster, host);
        Routed {
            head: response,
            body: UpstreamTail::wrap(
                body,
                Timing::new(self, sizes, ready, host, canary),
                &cx.info,
                ready,
                log,
                deferred.then(|| host.clone()),
            ),
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
